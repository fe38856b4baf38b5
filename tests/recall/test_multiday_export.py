"""LongMemEval's schema, the command line and its statistics."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from benchmarks.recall.multiday.__main__ import main, words_as_tokens
from benchmarks.recall.multiday.generator import diary
from benchmarks.recall.multiday.longmemeval import records

OFFICIAL = {
    "single-session-user",
    "single-session-assistant",
    "single-session-preference",
    "multi-session",
    "temporal-reasoning",
    "knowledge-update",
}
DATE = re.compile(r"\d{4}/\d\d/\d\d \((Mon|Tue|Wed|Thu|Fri|Sat|Sun)\) \d\d:\d\d")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the command of the documentation writes."""
    path = tmp_path_factory.mktemp("multiday") / "file.json"
    main(["--days", "80", "--persona", "3", "--seed", "1", "--out", str(path)])
    read: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return read


def test_records_follow_the_schema(found: list[dict[str, Any]]) -> None:
    """All keys of LongMemEval with their types; types and dates as its scorer knows them; unique ids."""
    assert len({record["question_id"] for record in found}) == len(found) >= 36
    for record in found:
        assert record["question_type"] in OFFICIAL
        assert record["question_id"].endswith("_abs") == (record["multiday_kind"] == "abstention")
        assert isinstance(record["question"], str) and "[" not in record["question"]
        assert isinstance(record["answer"], str)
        assert DATE.fullmatch(record["question_date"])
        ids, dates, sessions = (record[f"haystack_{name}"] for name in ("session_ids", "dates", "sessions"))
        assert len(ids) == len(dates) == len(sessions) == len(set(ids))
        assert all(DATE.fullmatch(date) for date in dates)
        assert dates == sorted(dates) and dates[-1] < record["question_date"]
        assert set(record["answer_session_ids"]) <= set(ids)


def test_turns_mark_their_evidence(found: list[dict[str, Any]]) -> None:
    """Turns have role and content without a header; those of the answer sessions, and no others, are marked."""
    for record in found:
        marked = []
        for name, session in zip(record["haystack_session_ids"], record["haystack_sessions"], strict=True):
            for turn in session:
                assert turn["role"] in {"user", "assistant"}
                assert not turn["content"].startswith("[20")
                if turn.get("has_answer"):
                    marked.append(name)
        assert marked == record["answer_session_ids"]
        assert bool(marked) == (record["multiday_kind"] != "abstention")


def test_an_assistants_answer_is_marked_in_its_own_turn(found: list[dict[str, Any]]) -> None:
    """For what the assistant said, the marked turn is the assistant's and holds the answer."""
    for record in found:
        if record["question_type"] == "single-session-assistant":
            (turn,) = [t for s in record["haystack_sessions"] for t in s if t.get("has_answer")]
            assert turn["role"] == "assistant"
            assert record["answer"] in turn["content"]


def test_what_is_to_be_dropped_is_marked() -> None:
    """A turn for the memory's `forget` says so, in every record of its diary."""
    made = diary(3, tokens=32_000, seed=1, count_tokens=words_as_tokens)
    wanted = sum(message.source is not None for _, message in made.messages())

    assert wanted
    for record in records(made):
        assert sum(turn.get("forget", False) for s in record["haystack_sessions"] for turn in s) == wanted


def test_the_command_prints_statistics_and_diaries(capsys: pytest.CaptureFixture[str]) -> None:
    """Counts by kind, tokens and sessions; `--read` prints headers, names and questions; all twelve by default."""
    main(["--days", "5", "--seed", "2"])
    counts = capsys.readouterr().out
    main(["--days", "20", "--persona", "0", "--seed", "2", "--read"])
    text = capsys.readouterr().out

    assert re.search(r"^diaries +72, of 5 days$", counts, re.MULTILINE)
    assert re.search(r"^questions +440$", counts, re.MULTILINE)
    assert re.search(r"knowledge-update +60 ", counts)
    assert re.search(r"^  Nora: \[2026-01-05 Mon \d\d:\d\d\]$", text, re.MULTILINE)
    assert "? [knowledge-update] [2026-" in text
    assert text.count("* Nora: ") > 10


def test_lengths_are_in_the_counters_tokens() -> None:
    """A tokenizer that makes more tokens of the same words gets a shorter diary."""
    thrifty = diary(1, tokens=8_000, seed=1, count_tokens=words_as_tokens)
    wordy = diary(1, tokens=8_000, seed=1, count_tokens=len)

    assert len(list(wordy.messages())) < len(list(thrifty.messages()))


def test_an_unknown_person_is_refused() -> None:
    """There are twelve."""
    with pytest.raises(SystemExit):
        main(["--persona", "12"])

"""The six-day example on a tiny random model: its story, its checks, its processes and its comparison."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentmem import AgentMemory, MemoryConfig
from support.source_tree import ROOT
from support.tiny_folder import write_chat_model

sys.path.insert(0, str(ROOT / "examples"))

import multi_day_assistant as assistant
import multi_day_measure as measure
from multi_day_print import Page
from multi_day_story import DAYS, FACTS, Day, Fact, Read, Say


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model folder."""
    return str(write_chat_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def lived(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home where the days before the last were lived; the replies are short."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assistant, "REPLY_TOKENS", 2)
        patch.setattr(assistant, "ANSWER_TOKENS", 4)
        for number in range(1, len(DAYS)):
            assistant.spend(number, home, model, Page())
        yield home


@pytest.fixture
def short(model: str, tmp_path: Path) -> Path:
    """A home where two facts were told and a little else, all of it attended to."""
    with AgentMemory.resume("ada", model=model, home=tmp_path, config=MemoryConfig(dense_tokens=4096)) as ada:
        for fact in FACTS[:2]:
            ada.chat(f"It is {fact.key}, you know.", max_new_tokens=3)
    return tmp_path


def told(day: Day) -> str:
    """All a day says and reads, as one text."""
    return "\n".join(
        event.text if isinstance(event, Say) else event.path.read_text(encoding="utf-8")
        for event in day.events
    )


def counts(agentmem: int, full: int, window: int) -> dict[str, Any]:
    """The verdict on so many recalled facts."""

    def answers(recalled: int) -> list[dict[str, bool]]:
        return [{"recalled": number < recalled} for number in range(10)]

    arms = {"full_attention": answers(full), "window_only": answers(window)}
    return assistant.verdict({"answers": answers(agentmem)}, arms)


def test_the_story_is_six_days_and_ten_early_facts() -> None:
    """Each fact is told once, in the first two days, in passing, and is nowhere in a later text."""
    assert len(DAYS) == 6
    assert len(FACTS) == 10
    for fact in FACTS:
        early = [event.text for day in DAYS[:2] for event in day.events if fact.key in event.text]
        assert len(early) == 1, fact.key
        assert early[0].endswith("?"), fact.key
        assert all(fact.key.lower() not in told(day).lower() for day in DAYS[2:]), fact.key
        assert fact.key.lower() not in " ".join(fact.question for fact in FACTS).lower()
    assert [day.date for day in DAYS] == sorted(day.date for day in DAYS)
    assert any(isinstance(event, Read) for event in DAYS[2].events)


def test_the_last_day_rereads_nothing_and_finds_every_fact_out_of_sight(lived: Path, model: str) -> None:
    """Ten answers, each with a receipt: nothing forwarded again, and blocks of the first days recalled."""
    last = assistant.spend(len(DAYS), lived, model, Page())

    assert [answer["key"] for answer in last["answers"]] == [fact.key for fact in FACTS]
    assert {answer["tokens_reread"] for answer in last["answers"]} == {0}
    assert {answer["tokens_held"] for answer in last["answers"]} == {last["tokens_held"]}
    assert last["tokens_held"] > measure.LEAST_HISTORY
    days = {answer["block"]["day"] for answer in last["answers"] if answer["block"]}
    assert days <= {day.date[:10] for day in DAYS[:2]}


def test_the_comparison_leaves_the_memory_as_it_was(lived: Path, model: str) -> None:
    """Both other ways answer every question; the fork they need is gone afterwards."""
    before = [(info.agent_id, info.tokens) for info in AgentMemory.list(home=lived)]

    arms = assistant.compare(lived, model, Page())

    assert len(arms["full_attention"]) == len(arms["window_only"]) == len(FACTS)
    assert arms["reprefill_seconds"] > 0
    assert [(info.agent_id, info.tokens) for info in AgentMemory.list(home=lived)] == before
    with AgentMemory.resume("ada", home=lived, read_only=True) as ada:
        assert ada.config == MemoryConfig()


def test_full_attention_is_what_a_memory_answers_while_it_is_dense(short: Path, model: str) -> None:
    """The transcript read again by stock transformers gives the answers of a memory that sees all of it."""
    seen: list[tuple[int, int]] = []

    full, _ = measure.full_attention(short, "ada", model, FACTS[:3], 12, lambda *done: seen.append(done))
    with AgentMemory.resume("ada", home=short) as ada:
        dense = [ada.chat(fact.question, remember=False, max_new_tokens=12).text for fact in FACTS[:3]]

    assert [answer["answer"] for answer in full] == dense
    assert any(dense)
    assert seen == [(len(_ids(short)), len(_ids(short)))]


def test_facts_are_found_token_by_token(short: Path) -> None:
    """A fact's place is the tokens that spell its key; one that nobody told ends the example."""
    with AgentMemory.resume("ada", home=short) as ada:
        places = measure.find_facts(short, "ada", FACTS[:2], ada.tokenizer)
        spelled = [ada.tokenizer.decode(_ids(short)[place.start : place.stop]).strip() for place in places]

        assert spelled == [fact.key for fact in FACTS[:2]]
        with pytest.raises(SystemExit, match="nobody has told 'unicorn'"):
            measure.find_facts(short, "ada", [Fact("unicorn", "What is it?")], ada.tokenizer)


def test_a_fact_in_sight_is_refused(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example ends with a message when a fact could be answered without recall."""
    small = MemoryConfig(sink_tokens=0, window_tokens=32, recall_tokens=0)
    monkeypatch.setattr(measure, "LEAST_HISTORY", 1)
    with AgentMemory.resume("ada", home=short) as ada:
        places = measure.find_facts(short, "ada", FACTS[:2], ada.tokenizer)
        for config, where in ((small, "window"), (small.changed(sink_tokens=16), "sinks")):
            with pytest.raises(SystemExit, match=where):
                measure.check_out_of_sight(short, "ada", places, config, ada.tokenizer)


def _ids(home: Path) -> list[int]:
    store = measure.DiskHome(home).open("ada", read_only=True)
    try:
        return store.token_ids(0, store.log.committed)
    finally:
        store.close()


@pytest.mark.parametrize(
    ("agentmem", "full", "window", "passed"),
    [(8, 10, 5, True), (7, 10, 0, False), (8, 10, 6, False), (3, 3, 0, True), (2, 0, 0, False)],
)
def test_the_verdict(agentmem: int, full: int, window: int, passed: bool) -> None:
    """At least 0.8 of full attention, and at least three facts more than the window alone."""
    assert counts(agentmem, full, window)["passed"] is passed


def test_a_day_is_a_process_of_its_own(model: str, tmp_path: Path) -> None:
    """`--days 1` starts one process, which leaves its memory on disk."""
    assert assistant.main(["--days", "1", "--home", str(tmp_path), "--model", model, "--json"]) == 0

    with AgentMemory.resume("ada", home=tmp_path, read_only=True) as ada:
        said = [turn.messages[0]["content"] for turn in ada.history() if turn.kind == "chat"]
    assert said == [event.text for event in DAYS[0].events if isinstance(event, Say)]


def test_unknown_days_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Days outside the story end with argparse's message."""
    with pytest.raises(SystemExit) as refused:
        assistant.main(["--days", "5-7"])

    assert refused.value.code == 2
    assert "give days from 1 to 6" in capsys.readouterr().err

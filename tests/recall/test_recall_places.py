"""Finding evidence among tokens, and refusing evidence that is in plain sight."""

from __future__ import annotations

import random

import pytest

from agentmem import MemoryConfig
from benchmarks.recall.items import Question
from benchmarks.recall.places import EvidenceError, LogText, check_out_of_sight, find_evidence
from support.templates import tokenizer_for

WORDS = "the cat sat on a mat über naïve 日本 and then 😀 it slept for seven days".split()


def _asked(*evidence: str) -> Question:
    return Question("q", "k", "?", ("a",), evidence)


@pytest.mark.parametrize("template", ["chatml", "llama2"])
def test_every_token_range_spells_its_snippet_and_no_shorter_one_does(template: str) -> None:
    """In long texts with odd characters each snippet is found wherever it stands, as tightly as tokens allow."""
    tokenizer = tokenizer_for(template)
    chance = random.Random(4)
    words = [chance.choice(WORDS) for _ in range(1500)]
    places = sorted(chance.sample(range(10, 1490), 6))
    for number, place in enumerate(places):
        words[place] = f"needle {number % 5} is here,"
    ids = tokenizer(" ".join(words), add_special_tokens=False)["input_ids"]
    assert len(ids) > 1200, "several windows of text"
    log = LogText(ids, tokenizer, 12)

    found = {number: log.find(f"needle {number} is here,") for number in range(5)}

    assert [len(found[number]) for number in range(5)] == [2, 1, 1, 1, 1]
    for number, ranges in found.items():
        for start, stop in ranges:
            snippet = f"needle {number} is here,"
            assert snippet in tokenizer.decode(ids[start:stop])
            assert snippet not in tokenizer.decode(ids[start + 1 : stop])
            assert snippet not in tokenizer.decode(ids[start : stop - 1])
    everywhere = [place for ranges in found.values() for place in ranges]
    assert len(set(everywhere)) == 6


def test_what_was_forgotten_spells_nothing() -> None:
    """Dropped tokens keep their places, and no snippet is found across them."""
    tokenizer = tokenizer_for("chatml")
    ids = tokenizer("one red fox and one blue fox met one red fox", add_special_tokens=False)["input_ids"]
    where = LogText(ids, tokenizer, 12).find("red fox")
    (start, stop), last = where

    holed = [*ids[: start + 1], *[-1] * (stop - start - 2), *ids[stop - 1 :]]

    assert LogText(holed, tokenizer, 12).find("red fox") == [last]


def test_each_question_gets_the_ranges_of_all_its_snippets() -> None:
    """Two snippets give two ranges; a question without evidence none; a missing snippet is named."""
    tokenizer = tokenizer_for("chatml")
    ids = tokenizer("one red fox and one blue fox met", add_special_tokens=False)["input_ids"]
    nothing = Question("none", "k", "?", (), ())

    found = find_evidence(ids, tokenizer, [_asked("red fox", "blue fox"), nothing])

    assert [tokenizer.decode(ids[a:b]).strip() for a, b in found["q"]] == ["red fox", "blue fox"]
    assert found["none"] == []
    with pytest.raises(EvidenceError, match="'green fox' is nowhere"):
        find_evidence(ids, tokenizer, [_asked("green fox")])


SIGHT = MemoryConfig(sink_tokens=8, window_tokens=24, recall_tokens=32, block_tokens=8)


@pytest.mark.parametrize(
    ("start", "stop", "words"),
    [
        (7, 9, "in the 8 sinks"),
        (8, 16, None),
        (70, 72, None),
        (70, 73, "in the window from 72"),
        (90, 95, "window"),
    ],
)
def test_evidence_in_sinks_or_window_is_refused(start: int, stop: int, words: str | None) -> None:
    """Of 100 tokens, 8 are sinks and the window begins on the grid at or before the last 24."""
    evidence = {"q": [(20, 22), (start, stop)]}

    if words is None:
        check_out_of_sight(evidence, 100, SIGHT, dense=False)
    else:
        with pytest.raises(EvidenceError, match=words):
            check_out_of_sight(evidence, 100, SIGHT, dense=False)


def test_a_history_that_is_wholly_attended_to_is_refused_unless_that_is_meant() -> None:
    """At 64 tokens nothing would be recalled; full attention means to see everything, but no cheaper arm's sights."""
    with pytest.raises(EvidenceError, match="64 tokens are all attended to"):
        check_out_of_sight({}, 64, SIGHT, dense=False)

    check_out_of_sight({"q": [(20, 30)]}, 64, SIGHT, dense=True)
    with pytest.raises(EvidenceError, match="window"):
        check_out_of_sight({"q": [(50, 60)]}, 64, SIGHT, dense=True)

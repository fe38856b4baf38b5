"""Plans: the frame hides evidence from every arm, and jobs come in an order that a cut leaves even."""

from __future__ import annotations

import re

import pytest

from agentmem.memory.modes import MODES
from benchmarks.recall.arms import DEFAULT
from benchmarks.recall.framing import frame_for
from benchmarks.recall.items import Question
from benchmarks.recall.plan import Slice, jobs
from benchmarks.recall.suites import SUITES, changed, slices_of
from benchmarks.recall.tasks import TASKS
from support.recall_toy import count_tokens, histories
from support.source_tree import ROOT
from support.tiny_language_model import SMALL, language_model


def test_the_frame_is_longer_than_sinks_and_any_window() -> None:
    """Its head covers the sinks, its tail a window of the whole budget, and it says nothing that could be asked."""
    counter = count_tokens(language_model())
    frame = frame_for(SMALL, counter)

    assert counter(frame.head.text) >= SMALL.sink_tokens
    assert counter(frame.tail.text) >= SMALL.budget + SMALL.block_tokens
    assert frame.tokens == counter(frame.head.text) + counter(frame.tail.text)
    assert frame == frame_for(SMALL, counter)
    assert not any(letter.isdigit() for letter in frame.head.text + frame.tail.text)
    assert frame.left(10 * frame.tokens) == 9 * frame.tokens
    assert frame.left(frame.tokens) == frame.tokens // 2


def test_every_arm_gets_the_same_framed_history() -> None:
    """Head and tail are pieces like the others; the length is the one asked for; the seed decides."""
    first, second = list(jobs([Slice("codes", (400,), 1, ("a", "b"))], histories()))
    other = next(jobs([Slice("codes", (400,), 1, ("a",))], histories(seed=1)))

    assert first.history == second.history
    assert first.history.tokens == 400
    counter = count_tokens(language_model())
    assert sum(counter(piece.text) for piece in first.history.pieces) == pytest.approx(400, abs=40)
    assert first.history.pieces[0].text.startswith(frame_for(SMALL, counter).head.text)
    assert other.history != first.history


def test_jobs_go_round_by_history() -> None:
    """First the first history of every length and arm, so that a run that is cut has some of everything."""
    slices = [Slice("codes", (300, 400), 2, ("a", "b")), Slice("codes", (350,), 1, ("c",))]

    order = [(job.history.id[-1], job.history.tokens, job.arm) for job in jobs(slices, histories())]

    assert order == [
        ("0", 300, "a"), ("0", 300, "b"), ("0", 400, "a"), ("0", 400, "b"), ("0", 350, "c"),
        ("1", 300, "a"), ("1", 300, "b"), ("1", 400, "a"), ("1", 400, "b"),
    ]  # fmt: skip


def test_fewer_questions_are_spread_over_the_kinds() -> None:
    """Of four questions of two kinds, two are one of each, in their old order."""
    job = next(jobs([Slice("codes", (400,), 1, ("a",), questions=2)], histories()))
    whole = next(jobs([Slice("codes", (400,), 1, ("a",))], histories()))

    kept: tuple[Question, ...] = job.history.questions
    assert [question.kind for question in kept] == ["early", "late"]
    assert len(whole.history.questions) == 4


def test_suites_name_tasks_that_exist() -> None:
    """Every suite's slices can be made, and the command line may change each part of them."""
    names = {one.task for suite in SUITES.values() for one in suite.slices}
    assert names <= set(TASKS)

    for name in (*SUITES, *TASKS):
        slices = changed(
            slices_of(name, TASKS), arms=["x"], lengths=[7], histories=3, questions=2,
            restart="ask", rank=True, evidence=True,
        )  # fmt: skip
        assert {(one.arms, one.lengths, one.histories, one.questions) for one in slices} == {
            (("x",), (7,), 3, 2)
        }
        assert {(one.restart, one.rank, one.evidence) for one in slices} == {("ask", True, True)}
    with pytest.raises(ValueError, match="no suite or task 'nothing'; suites: headline"):
        slices_of("nothing", TASKS)


def test_the_page_names_every_suite_and_mode() -> None:
    """docs/RECALL.md lists the suites in the words of the code, in order, and every reference mode."""
    page = (ROOT / "docs" / "RECALL.md").read_text(encoding="utf-8")

    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", page, flags=re.MULTILINE)
    assert rows == [(name, suite.words) for name, suite in SUITES.items()]
    assert all(f"`{name}`" in page for name in (DEFAULT, *MODES))

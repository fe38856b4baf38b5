"""The journal of finished cells: what was written is found again, what was cut short is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.recall.cells import Answer, Cell, CellKey, Reading, digest
from benchmarks.recall.journal import Journal

KEY = CellKey("codes", 400, "codes-0-0", "default", "abc")
ANSWER = Answer("q", "early", 'said "ü"\u2028\n', 0.5, 1.0, 0.5, 9, 3, 0, 0.25, None, (-0.5, -2.0))
DONE = Cell(KEY, "done", "", Reading(410, 400, 2.0, 4096), (ANSWER,), {"evidence": {"layers": [1]}})


def test_a_cell_comes_back_as_it_was(tmp_path: Path) -> None:
    """Every field survives the file, whatever the answer's text holds."""
    Journal(tmp_path / "deep" / "c.jsonl").add(DONE)

    again = Journal(tmp_path / "deep" / "c.jsonl")

    assert list(again) == [DONE]
    assert again.finished(KEY) == DONE
    assert again.finished(replace(KEY, digest="other")) is None


def test_a_line_that_was_cut_short_is_dropped(tmp_path: Path) -> None:
    """After a crash in the middle of a line the whole ones stay, and new ones follow them."""
    path = tmp_path / "c.jsonl"
    Journal(path).add(DONE)
    path.write_bytes(path.read_bytes() + DONE.to_json().encode()[:50])
    other = replace(DONE, key=replace(KEY, arm="full"))

    Journal(path).add(other)

    assert list(Journal(path)) == [DONE, other]


def test_failed_cells_are_tried_again_and_what_does_not_fit_is_not(tmp_path: Path) -> None:
    """A failure does not count as finished; the newest line of a cell is the one that counts."""
    journal = Journal(tmp_path / "c.jsonl")
    journal.add(Cell(KEY, "failed", "disk full"))
    assert journal.finished(KEY) is None

    journal.add(DONE)
    unfit = Cell(replace(KEY, arm="full"), "does not fit", "too long")
    journal.add(unfit)

    again = Journal(tmp_path / "c.jsonl")
    assert again.finished(KEY) == DONE
    assert again.finished(unfit.key) == unfit


def test_another_file_is_refused(tmp_path: Path) -> None:
    """A file that holds something else is named with its line, and not overwritten."""
    path = tmp_path / "c.jsonl"
    path.write_text('{"key": 1}\n')

    with pytest.raises(ValueError, match=r"line 1, is no cell of this version"):
        Journal(path)
    assert path.read_text() == '{"key": 1}\n'


def test_reading_speed_and_ranking() -> None:
    """Speed counts what was read now; the first choice must be the likeliest to count as ranked."""
    assert Reading(410, 400, 2.0, 0).tokens_per_second == 200.0
    assert Reading(410, 0, 0.1, 0).tokens_per_second == 0.0
    assert ANSWER.ranked == 1.0
    assert replace(ANSWER, choices=(-2.0, -0.5)).ranked == 0.0
    assert replace(ANSWER, choices=(-1.0, -1.0)).ranked == 0.0
    assert replace(ANSWER, choices=()).ranked is None


def test_a_digest_depends_on_everything() -> None:
    """Any other part gives another name; the order of keys does not count."""
    assert digest({"a": 1, "b": 2}, [3]) == digest({"b": 2, "a": 1}, [3])
    assert len({digest({"a": 1}), digest({"a": 2}), digest({"a": 1}, None)}) == 3

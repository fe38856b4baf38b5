"""Cells gathered into scores: by task, length, arm and kind, and paired between two arms.

Reads cells and nothing else. Scores of two arms are paired by history and question; what only one of them has
answered is left out of a comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from benchmarks.recall.arms import DEFAULT
from benchmarks.recall.cells import Answer, Cell
from benchmarks.recall.held import evidence_of, held_in
from benchmarks.recall.statistics import Interval, Paired, bootstrap_mean, paired, unpaired, wilson

Pick = Callable[[Answer], float | None]
"""What is looked at in an answer; None: not measured there."""


def score(answer: Answer) -> float | None:
    """The judge's score."""
    return answer.score


def ranked(answer: Answer) -> float | None:
    """Whether the right choice was the likeliest."""
    return answer.ranked


def seen(answer: Answer) -> float | None:
    """Part of the evidence among the recalled blocks."""
    return answer.seen


DIGITS = 9
"""Decimals of a mean: sums that were added up in parts differ beyond them."""


@dataclass(frozen=True)
class Where:
    """A cell of the table: histories of one task and length."""

    task: str
    tokens: int


@dataclass(frozen=True)
class Scores:
    """Values by (history, question)."""

    by_question: Mapping[tuple[str, str], float]

    @property
    def values(self) -> list[float]:
        """The values, in the order they were asked."""
        return list(self.by_question.values())

    @property
    def histories(self) -> list[str]:
        """The history of each value."""
        return [history for history, _ in self.by_question]

    @property
    def interval(self) -> Interval:
        """Their mean with Wilson's interval."""
        return wilson(sum(self.values), len(self.values))

    @property
    def mean(self) -> Interval:
        """Their mean with a bootstrap interval, for values that are not right or wrong."""
        return bootstrap_mean(self.values, self.histories)

    def minus(self, other: Scores, factor: float = 1.0) -> Paired:
        """This minus ``factor`` times the other's, on the questions both have."""
        both = [key for key in self.by_question if key in other.by_question]
        return paired(
            [self.by_question[key] for key in both],
            [other.by_question[key] for key in both],
            [history for history, _ in both],
            factor=factor,
        )

    def beyond(self, other: Scores) -> Interval:
        """This minus the other's, of different questions."""
        return unpaired(self.values, other.values, self.histories, other.histories)

    def joined(self, other: Scores) -> Scores:
        """Both together."""
        return Scores({**self.by_question, **other.by_question})


class Results:
    """The finished cells of a run; ``default`` is the arm that all others are compared with."""

    def __init__(self, cells: Iterable[Cell], default: str = DEFAULT) -> None:
        self.cells = list(cells)
        self.default = default

    @cached_property
    def wheres(self) -> list[Where]:
        """Every task and length there is, in order of appearance of the task, then by length."""
        tasks = list(dict.fromkeys(cell.key.task for cell in self.cells))
        found = {Where(cell.key.task, cell.key.tokens) for cell in self.cells}
        return sorted(found, key=lambda where: (tasks.index(where.task), where.tokens))

    @cached_property
    def arms(self) -> list[str]:
        """Every arm, in order of appearance."""
        return list(dict.fromkeys(cell.key.arm for cell in self.cells))

    def lengths(self, task: str) -> list[int]:
        """The lengths of a task."""
        return [where.tokens for where in self.wheres if where.task == task]

    def kinds(self, where: Where) -> list[str]:
        """The kinds of questions asked there, in order of appearance."""
        return list(dict.fromkeys(a.kind for cell in self.at(where) for a in cell.answers))

    def at(self, where: Where, arm: str | None = None) -> Iterator[Cell]:
        """The cells of a place, of one arm or of all."""
        for cell in self.cells:
            if (cell.key.task, cell.key.tokens) == (where.task, where.tokens) and arm in {None, cell.key.arm}:
                yield cell

    def scores(self, where: Where, arm: str, pick: Pick = score, kind: str | None = None) -> Scores:
        """What an arm reached there, of all kinds of questions or of one."""
        found: dict[tuple[str, str], float] = {}
        for cell in self.at(where, arm):
            for answer in cell.answers:
                value = pick(answer)
                if value is not None and kind in {None, answer.kind}:
                    found[cell.key.history, answer.question] = value
        return Scores(found)

    def coverage(self, where: Where, arm: str, rule: str = "chosen") -> Scores:
        """Part of the attention to evicted tokens that a rule's blocks cover, on an arm's own histories.

        Question by question, the mean over layers and heads; left out where nothing was chosen.

        Args:
            where, arm: which cells.
            rule: "chosen", what the arm chose; "exact" and "random", judged beside it at as many blocks.
        """
        found: dict[tuple[str, str], float] = {}
        for cell in self.at(where, arm):
            for row in evidence_of(cell).get("questions", ()):
                if row["chosen"]:
                    found[cell.key.history, row["question"]] = row["rules"][rule]["heads"]["coverage"]
        return Scores(found)

    def held(self, where: Where, arm: str, rule: str) -> list[float]:
        """The mean of each of ``FIGURES`` over the questions that have evidence; empty where none has."""
        parts = [held_in(cell) for cell in self.at(where, arm)]
        total = sum(part.questions for part in parts)
        columns = zip(*(part.sums[rule] for part in parts if part.questions), strict=True)
        return [round(math.fsum(column) / total, DIGITS) for column in columns]

    def layers(self, where: Where, arm: str, rule: str) -> dict[int, float]:
        """Coverage of each layer, the mean over its heads and over the cells there are."""
        sums: dict[int, list[float]] = {}
        for cell in self.at(where, arm):
            for row in evidence_of(cell).get("heads", ()):
                sums.setdefault(row["layer"], []).append(row["rules"][rule]["coverage"])
        return {layer: sum(values) / len(values) for layer, values in sorted(sums.items())}

    def status(self, where: Where, arm: str) -> str:
        """Why no cell of it is done: "does not fit" or "failed"; empty when one is."""
        statuses = [cell.status for cell in self.at(where, arm)]
        return "" if "done" in statuses or not statuses else statuses[0]

    @property
    def failed(self) -> Sequence[Cell]:
        """The cells that failed."""
        return [cell for cell in self.cells if cell.status == "failed"]

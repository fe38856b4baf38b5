"""What a run will do: slices of tasks, lengths and arms, unrolled into jobs in the order that keeps a cut run even.

Knows no model beyond a token counter; makes histories and reads none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

from benchmarks.recall.framing import Frame
from benchmarks.recall.items import History, Task

Restart = Literal["never", "ask", "compare"]
"""Who answers: the process that read; a new one; both, and they must agree."""


@dataclass(frozen=True)
class Slice:
    """One task at some lengths for some arms."""

    task: str
    lengths: tuple[int, ...]
    histories: int
    """Of each length."""
    arms: tuple[str, ...]
    questions: int | None = None
    """The first so many questions of each history, spread over its kinds; None: all."""
    restart: Restart = "never"
    rank: bool = False
    """Also rank each question's choices by log-probability."""
    evidence: bool = False
    """Also measure which blocks were chosen."""


@dataclass(frozen=True)
class Job:
    """One cell to come."""

    task: Task
    history: History
    arm: str
    restart: Restart = "never"
    rank: bool = False
    evidence: bool = False


class Histories:
    """Histories within their frame, made once and handed out to every arm."""

    def __init__(
        self,
        tasks: Mapping[str, Callable[[], Task]],
        frame: Frame,
        seed: int,
        count_tokens: Callable[[str], int],
    ) -> None:
        self._tasks = {name: make() for name, make in tasks.items()}
        self._frame = frame
        self._seed = seed
        self._count_tokens = count_tokens
        self._made: dict[tuple[str, int, int], list[History]] = {}

    def task(self, name: str) -> Task:
        """The task of that name."""
        return self._tasks[name]

    def of(self, name: str, tokens: int, count: int) -> list[History]:
        """``count`` histories of a length, the same for the same seed."""
        key = (name, tokens, count)
        if key not in self._made:
            task, left = self._tasks[name], self._frame.left(tokens)
            made = islice(task.histories(left, count, self._seed, self._count_tokens), count)
            self._made[key] = [self._frame.around(history, tokens) for history in made]
        return self._made[key]


def jobs(slices: Sequence[Slice], histories: Histories) -> Iterator[Job]:
    """Every cell: the first history of every task, length and arm, then the second ones, and so on."""
    for number in range(max((one.histories for one in slices), default=0)):
        for one in slices:
            if number < one.histories:
                yield from _round(one, number, histories)


def _round(one: Slice, number: int, histories: Histories) -> Iterator[Job]:
    for tokens in one.lengths:
        made = histories.of(one.task, tokens, one.histories)
        if number >= len(made):
            continue
        history = _limited(made[number], one.questions)
        for arm in one.arms:
            yield Job(histories.task(one.task), history, arm, one.restart, one.rank, one.evidence)


def _limited(history: History, questions: int | None) -> History:
    """The history with at most so many questions, taken in turn from each kind."""
    if questions is None or questions >= len(history.questions):
        return history
    kinds: dict[str, list[int]] = {}
    for place, question in enumerate(history.questions):
        kinds.setdefault(question.kind, []).append(place)
    ranked = sorted((turn, place) for places in kinds.values() for turn, place in enumerate(places))
    kept = sorted(place for _, place in ranked[:questions])
    return replace(history, questions=tuple(history.questions[place] for place in kept))

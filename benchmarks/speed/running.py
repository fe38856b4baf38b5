"""Runs rounds of steps, sides interleaved, each finished cell kept; a cell that fails is noted, the next one tried.

Knows no figure's meaning.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks.speed.cells import CellKey, Cells
from benchmarks.speed.plan import Step
from benchmarks.speed.rpc import Figures, WorkerError


class Measuring(Protocol):
    """Whoever measures; see :class:`benchmarks.speed.sides.Sides`."""

    def prepare(self, side: str, lengths: Sequence[int]) -> None:
        """Make histories of these lengths."""
        ...

    def measure(self, side: str, what: str, length: int, arguments: dict[str, int]) -> Figures:
        """One cell. Raises WorkerError."""
        ...


@dataclass
class Outcome:
    """What was not measured, and why."""

    failed: list[str] = field(default_factory=list)
    late: int = 0
    """Cells that were left since time was up."""


@dataclass(frozen=True)
class Rounds:
    """Steps, again and again. ``key`` names a step's cell in a round; ``deadline`` as ``time.monotonic``."""

    steps: Sequence[Step]
    runs: int
    cells: Cells
    key: Callable[[Step, int], CellKey]
    deadline: float = float("inf")

    def missing(self) -> Iterator[tuple[int, Step, CellKey]]:
        """What is still to be measured, in order."""
        for run in range(self.runs):
            for step in self.steps:
                key = self.key(step, run)
                if (run == 0 or not step.once) and self.cells.get(key) is None:
                    yield run, step, key

    def run(self, sides: Measuring, tell: Callable[[str, int, int], Any] = lambda *_: None) -> Outcome:
        """Measure all that is missing. ``tell`` is told (what, done, of how many)."""
        outcome, todo = Outcome(), list(self.missing())
        dead: dict[str, str] = self._prepare(sides, todo, tell, outcome)
        for number, (run, step, key) in enumerate(todo):
            if step.side in dead:
                continue
            if time.monotonic() >= self.deadline:
                outcome.late = len(todo) - number
                break
            tell(f"round {run + 1}: {step.what} at {step.length:,}, {step.side}", number, len(todo))
            try:
                self.cells.add(key, sides.measure(step.side, step.what, step.length, step.arguments))
            except WorkerError as error:
                outcome.failed.append(
                    f"{step.side}, {step.what} at {step.length:,}, round {run + 1}: {error}"
                )
        tell("measured", len(todo), len(todo))
        return outcome

    def _prepare(
        self,
        sides: Measuring,
        todo: Sequence[tuple[int, Step, CellKey]],
        tell: Callable[[str, int, int], Any],
        outcome: Outcome,
    ) -> dict[str, str]:
        """Make our histories, once for all kinds of weights; gives the sides that cannot be measured at all."""
        dead: dict[str, str] = {}
        lengths: Mapping[str, list[int]] = {}
        for _, step, _ in todo:
            if step.side.startswith("agentmem"):
                lengths = {**lengths, step.side: [*lengths.get(step.side, []), step.length]}
        for side, wanted in lengths.items():
            tell(f"writing histories, {side}", 0, len(todo))
            try:
                sides.prepare(side, sorted(set(wanted)))
            except WorkerError as error:
                dead[side] = str(error)
                outcome.failed.append(f"{side}: nothing was measured: {error}")
        return dead

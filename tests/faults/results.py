"""What a gate found: how many cases, which failed, how long it took, on what."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Found:
    """A gate's cases and failures. ``skipped``: why it could not be tried here."""

    cases: int
    failures: Sequence[str]
    on: str
    skipped: str | None = None


@dataclass(frozen=True)
class GateResult:
    """One line of the table."""

    gate: str
    found: Found
    seconds: float

    @property
    def line(self) -> str:
        """The line that is printed."""
        if self.found.skipped is not None:
            return f"{self.gate:<44} skipped: {self.found.skipped}"
        return (
            f"{self.gate:<44} {self.found.cases:>7} cases {len(self.found.failures):>4} failures "
            f"{self.seconds:>7.1f} s  {self.found.on}"
        )


def timed(gate: str, tried: Callable[[], Found]) -> GateResult:
    """Run a gate and take the time."""
    started = time.monotonic()
    found = tried()
    return GateResult(gate, found, time.monotonic() - started)

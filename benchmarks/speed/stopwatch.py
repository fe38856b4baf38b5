"""Exclusive time by part: what a part's own parts take is not counted twice. Knows nothing of what is timed."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Clock = Callable[[], float]
REST = "Python, and what has no name"
"""The part that a lap's unnamed time belongs to."""


@dataclass(frozen=True)
class Lap:
    """What happened between two moments: seconds of each part, which add up to ``total``, and calls."""

    total: float
    seconds: Mapping[str, float]
    calls: Mapping[str, int]


class Stopwatch:
    """Times wrapped functions. One thread alone may call them.

    Args:
        clock: gives seconds. ``time.thread_time`` counts the calling thread's work alone, so that other work on
            the machine does not show, nor what further threads do.
    """

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self._clock = clock
        self.laps: list[Lap] = []
        self._open: list[_Frame] = []
        self._seconds: dict[str, float] = defaultdict(float)
        self._calls: dict[str, int] = defaultdict(int)
        self._begun = clock()

    def timed(
        self, part: str, function: Callable[..., Any], within: Mapping[str, str] | None = None
    ) -> Callable[..., Any]:
        """``function``, its own time counted for ``part``; for ``within[x]`` where it is called inside ``x``."""
        renamed = {} if within is None else within

        def run(*args: Any, **keywords: Any) -> Any:
            name = part
            if renamed:
                name = next((renamed[f.part] for f in reversed(self._open) if f.part in renamed), part)
            frame = _Frame(name)
            self._open.append(frame)
            started = self._clock()
            try:
                return function(*args, **keywords)
            finally:
                took = self._clock() - started
                self._open.pop()
                self._seconds[name] += took - frame.inside
                self._calls[name] += 1
                if self._open:
                    self._open[-1].inside += took

        return run

    def lap(self) -> None:
        """End a lap and begin the next one. Call it between timed functions, not inside one."""
        now = self._clock()
        seconds = dict(self._seconds)
        total = now - self._begun
        seconds[REST] = max(0.0, total - sum(seconds.values()))
        self.laps.append(Lap(total, seconds, dict(self._calls)))
        self._seconds.clear()
        self._calls.clear()
        self._begun = now


@dataclass
class _Frame:
    """A timed function that is running; ``inside``: seconds of timed functions that it called."""

    part: str
    inside: float = 0.0

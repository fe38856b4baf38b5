"""InfiniteBench's noise with one line of digits, the line's place swept from front to back (arXiv 2402.13718).

What its passkey and number string share. Published: before every 90th of 5,220 noise lines, from the first to behind
the last, with several keys each; here `count` histories sweep as many lines as fit, evenly, with one key each.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from benchmarks.recall.tasks.fitted import Asked, Draft, Place
from benchmarks.recall.tasks.haystacks import NoiseHaystack, with_needles
from benchmarks.recall.tasks.lengths import spread
from benchmarks.recall.tasks.words import unlike


@dataclass(frozen=True)
class SweptDigits:
    """One line that says its digits twice, in noise; history i of count has it at the i-th of count even depths."""

    name: str
    line: str
    draw: Callable[[random.Random], str]

    def draft(self, place: Place, units: int) -> Draft:
        """A context of `units` lines of noise and the line of digits."""
        hay = NoiseHaystack()
        lines = hay.lines(place.chance("hay"), units)
        digits, *others = islice(unlike(place.chance("digits"), self.draw), 4)
        needle = self.line.format(digits=digits)
        where = spread(range(units + 1), place.count)[place.index]
        return Draft(
            with_needles(lines, hay.joint, [needle], [where]),
            (Asked(slots={}, answers=(digits,), evidence=(needle,), choices=(digits, *others)),),
        )

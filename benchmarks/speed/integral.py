"""Seconds to read a whole context, from the seconds of single chunks at several depths of it.

Between measured depths the seconds per token are taken to change linearly, which is how attention's cost grows;
beyond the deepest one nothing is said. Knows no side.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

Point = tuple[float, float]
"""(tokens behind the middle of a chunk, seconds per token of that chunk)."""


def seconds_to_read(points: Sequence[Point], length: int) -> float | None:
    """The area under the points from 0 to ``length``; None when no chunk was measured as deep as that."""
    known = sorted(points)
    if not known or known[-1][0] < length:
        return None
    line = [(0.0, known[0][1]), *known]
    total = 0.0
    for (start, low), (stop, high) in itertools.pairwise(line):
        end = min(stop, float(length))
        if end <= start:
            continue
        at_end = low + (high - low) * (end - start) / (stop - start)
        total += (end - start) * (low + at_end) / 2
    return total

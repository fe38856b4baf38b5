"""Gate 7, the second half: what thousands of openings and turns leave behind in one process."""

from __future__ import annotations

from faults.results import Found
from faults.trees import scratch
from support.leaks import leaks
from support.tiny_language_model import language_model

MEGABYTES = 64.0
"""What an allocator may keep of thousands of turns whose history grows."""


def left_behind(*, openings: int, turns: int) -> Found:
    """Open and close so often, then take so many turns; descriptors, maps and threads must be as before."""
    with scratch() as folder:
        left = leaks(folder, language_model(), None, openings=openings, turns=turns)
    flat = (left.descriptors, left.maps, left.threads) == (0, 0, 0) and left.megabytes < MEGABYTES
    on = f"{openings:,} openings, {turns:,} turns in one process: {left}"
    return Found(openings + turns, [] if flat else [str(left)], on)

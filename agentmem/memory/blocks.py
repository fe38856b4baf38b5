"""The block grid: which tokens are sinks, blocks and window. Integers only.

Knows no tensors. Bounds depend on the token's position in the log and on nothing else, so neither
chunk size nor the order of reading moves a block (DESIGN fact 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Split:
    """How the past of one chunk is divided: sinks [0, sink_stop), blocks, window [window_start, length)."""

    sink_stop: int
    blocks: int
    """Whole blocks between sinks and window: the ones that can be recalled."""
    window_start: int
    length: int

    @property
    def attended(self) -> int:
        """Tokens attended to without any recall."""
        return self.sink_stop + self.length - self.window_start


@dataclass(frozen=True)
class BlockGrid:
    """Blocks of ``size`` tokens behind ``sinks`` tokens: block i is [sinks + i*size, sinks + (i+1)*size)."""

    sinks: int
    size: int

    def bounds(self, block: int) -> tuple[int, int]:
        """First token of the block, and one past its last."""
        start = self.sinks + block * self.size
        return start, start + self.size

    def joined(self, span: int) -> BlockGrid:
        """The grid whose blocks are ``span`` of this one's."""
        return BlockGrid(self.sinks, self.size * span)

    def split(self, length: int, window: int, span: int = 1) -> Split:
        """Divide a past of ``length`` tokens; the window takes ``window`` to ``window + span * size - 1`` tokens.

        The window starts on the grid, behind a multiple of ``span`` blocks, so that every token is in the
        sinks, in a whole block or in the window.
        """
        sink_stop = min(self.sinks, length)
        blocks = max(0, (length - window - self.sinks) // (self.size * span)) * span
        return Split(sink_stop, blocks, min(length, sink_stop + blocks * self.size), length)

    def whole_before(self, length: int) -> int:
        """How many blocks lie wholly in tokens [0, length)."""
        return max(0, (length - self.sinks) // self.size)

    def whole_inside(self, start: int, stop: int) -> range:
        """The blocks that lie wholly in tokens [start, stop)."""
        first = max(0, -((self.sinks - start) // self.size))
        return range(first, max(first, (stop - self.sinks) // self.size))


def joined_ranges(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges [start, stop) sorted, empty ones dropped, touching or overlapping ones joined."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        elif start < stop:
            joined.append((start, stop))
    return joined


def clip_ranges(ranges: Sequence[tuple[int, int]], start: int, stop: int) -> list[tuple[int, int]]:
    """The parts of sorted ``ranges`` that lie in [start, stop)."""
    return [(max(a, start), min(b, stop)) for a, b in ranges if a < stop and b > start]

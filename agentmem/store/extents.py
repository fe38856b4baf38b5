"""Where tokens lie: integers that map token positions to (segment, slot), and hand out new slots.

Pure bookkeeping: no tensors, no files, no SQLite. A *segment* is numbered; a *slot* is a row in it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Extent:
    """Tokens [start, start + count) of a branch lie in slots [slot, slot + count) of ``segment``."""

    start: int
    segment: int
    slot: int
    count: int

    @property
    def stop(self) -> int:
        """The position after the last token."""
        return self.start + self.count


class BranchMap:
    """The extents of one branch, root to head, covering [0, length) without a gap.

    Extents that lie end to end in one segment are kept as one, so the map stays short however many
    turns there were.
    """

    def __init__(self, extents: Iterable[Extent] = ()) -> None:
        self._starts: list[int] = []
        self._segments: list[int] = []
        self._deltas: list[int] = []  # slot = position + delta
        self._length = 0
        self._arrays: tuple[Ints, Ints, Ints] | None = None
        for extent in extents:
            if extent.start != self._length:
                raise ValueError(f"extent starts at {extent.start}, but {self._length} tokens are mapped")
            self.extend(extent.segment, extent.slot, extent.count)

    @property
    def length(self) -> int:
        """Tokens mapped."""
        return self._length

    def copy(self) -> BranchMap:
        """Another map of the same tokens."""
        return BranchMap(self.runs())

    def runs(self) -> list[Extent]:
        """Where all tokens lie, in order."""
        return self.pieces(0, self._length)

    def extend(self, segment: int, slot: int, count: int) -> None:
        """Map the next ``count`` tokens to ``segment`` from ``slot`` on."""
        delta = slot - self._length
        same = bool(self._starts) and self._segments[-1] == segment and self._deltas[-1] == delta
        if count and not same:
            self._starts.append(self._length)
            self._segments.append(segment)
            self._deltas.append(delta)
            self._arrays = None
        self._length += count

    def truncate(self, length: int) -> None:
        """Forget where tokens from ``length`` on lie."""
        while self._starts and self._starts[-1] >= length:
            self._starts.pop()
            self._segments.pop()
            self._deltas.pop()
            self._arrays = None
        self._length = min(self._length, length)

    def pieces(self, start: int, stop: int) -> list[Extent]:
        """The extents of tokens [start, stop), cut to that range, in order."""
        found: list[Extent] = []
        index = bisect_right(self._starts, start) - 1
        while start < stop:
            ends = self._starts[index + 1] if index + 1 < len(self._starts) else self._length
            end = min(stop, ends)
            found.append(Extent(start, self._segments[index], start + self._deltas[index], end - start))
            start, index = end, index + 1
        return found

    def locate(self, positions: Ints) -> tuple[Ints, Ints]:
        """(segments, slots) of positions, each in [0, length); shapes as given."""
        if self._arrays is None:
            columns = (self._starts, self._segments, self._deltas)
            starts, segments, deltas = (np.array(column, dtype=np.int64) for column in columns)
            self._arrays = (starts, segments, deltas)
        starts, segments, deltas = self._arrays
        index = starts.searchsorted(positions, side="right") - 1
        return segments[index], positions + deltas[index]


@dataclass(frozen=True)
class Tail:
    """Where the next token goes: ``slot`` of ``segment``; segments after it were never used."""

    segment: int
    slot: int

    def take(self, count: int, capacity: int) -> tuple[list[tuple[int, int, int]], Tail]:
        """Slots for ``count`` tokens as (segment, slot, count), rolling over, and the tail after them."""
        segment, slot = self.segment, self.slot
        taken: list[tuple[int, int, int]] = []
        while count:
            if slot == capacity:
                segment, slot = segment + 1, 0
            here = min(count, capacity - slot)
            taken.append((segment, slot, here))
            slot += here
            count -= here
        return taken, Tail(segment, slot)


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges [start, stop) sorted, empty ones dropped, touching or overlapping ones joined."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if start == stop:
            continue
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined

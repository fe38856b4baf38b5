"""The turns of the current branch, root to head, as integers: which turn holds which tokens.

Pure bookkeeping: knows no text, no files and no SQLite. Numbers lie in flat arrays, so that a branch of many
thousands of turns is there at once.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentmem.store.extents import merged


@dataclass(frozen=True)
class BranchTurn:
    """One turn of a branch: its id, the tokens [start, stop) it added, and whether it was forgotten."""

    id: int
    start: int
    stop: int
    forgotten: bool = False


class Branch:
    """Turns in order; each starts where the one before it stopped, and has a higher id.

    Args:
        turns: oldest first.
        set_aside: token ranges whose keys and values were lost; nothing may attend to them.
    """

    def __init__(self, turns: Iterable[BranchTurn] = (), set_aside: Iterable[tuple[int, int]] = ()) -> None:
        self._set_aside = list(set_aside)
        self._ids = array("q")
        self._stops = array("q")
        self._gone: dict[int, None] = {}  # where the forgotten turns stand, in order
        for turn in turns:
            self.append(turn)

    @classmethod
    def packed(
        cls,
        ids: NDArray[np.int64],
        stops: NDArray[np.int64],
        forgotten: NDArray[np.bool_],
        set_aside: Iterable[tuple[int, int, int]],
    ) -> Branch:
        """A branch from arrays, one element a turn. Raises ValueError when its turns are in no order.

        ``set_aside``: (turn, start, stop), of other branches too.
        """
        if (np.diff(ids) <= 0).any() or (np.diff(stops, prepend=0) < 0).any():
            raise ValueError("its turns are not in order")
        branch = cls()
        branch._ids.frombytes(ids.tobytes())
        branch._stops.frombytes(stops.tobytes())
        branch._gone = dict.fromkeys(np.flatnonzero(forgotten).tolist())
        branch._set_aside = [(start, stop) for turn, start, stop in set_aside if turn in branch]
        return branch

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, turn_id: int) -> bool:
        return self._place(turn_id) is not None

    @property
    def ids(self) -> list[int]:
        """Turn ids, oldest first."""
        return self._ids.tolist()

    @property
    def last(self) -> int | None:
        """The id of the newest turn; None for an empty branch."""
        return self._ids[-1] if self._ids else None

    @property
    def length(self) -> int:
        """Tokens in the branch."""
        return self._stops[-1] if self._stops else 0

    def newest(self, count: int) -> list[int]:
        """The ids of up to so many turns at the end, oldest first."""
        return self._ids[max(0, len(self._ids) - count) :].tolist()

    def turns(self, first: int = 0) -> list[BranchTurn]:
        """The turns from a place on (the root is at 0), oldest first."""
        return [self._turn(place) for place in range(first, len(self._ids))]

    def append(self, turn: BranchTurn) -> None:
        """Add the newest turn. Raises ValueError when it does not go on from the one before."""
        if turn.start != self.length or (self._ids and turn.id <= self._ids[-1]):
            raise ValueError(
                f"turn {turn.id} starts at {turn.start}, but the branch holds {self.length} tokens up to turn {self.last}"
            )
        if turn.forgotten:
            self._gone[len(self._ids)] = None
        self._ids.append(turn.id)
        self._stops.append(turn.stop)

    def upto(self, turn_id: int | None) -> Branch:
        """The part of it that ends with one of its turns; None: the empty part."""
        count = 0 if turn_id is None else self._index(turn_id) + 1
        part = Branch()
        part._ids, part._stops = self._ids[:count], self._stops[:count]
        part._gone = {place: None for place in self._gone if place < count}
        part._set_aside = [(start, stop) for start, stop in self._set_aside if stop <= part.length]
        return part

    def holding(self, position: int) -> int | None:
        """The id of the turn that holds a token; None outside the branch."""
        if not 0 <= position < self.length:
            return None
        return self._ids[bisect_right(self._stops, position)]

    def overlapping(self, start: int, stop: int) -> list[BranchTurn]:
        """The turns that hold any of tokens [start, stop), in order."""
        found = []
        for place in range(bisect_right(self._stops, start), len(self._ids)):
            turn = self._turn(place)
            if turn.start >= stop:
                break
            if min(turn.stop, stop) > max(turn.start, start):
                found.append(turn)
        return found

    def parent_of(self, turn_id: int) -> int | None:
        """The id of the turn before; None for the first."""
        place = self._index(turn_id)
        return self._ids[place - 1] if place else None

    def last_shared(self, other: Branch) -> int | None:
        """The id of the newest turn that both branches stand on; None when they share none."""
        low, high = 0, min(len(self), len(other))
        while low < high:  # a turn has one parent: what is shared ends once
            middle = (low + high + 1) // 2
            if self._ids[middle - 1] == other._ids[middle - 1]:
                low = middle
            else:
                high = middle - 1
        return self._ids[low - 1] if low else None

    def forgotten(self) -> list[tuple[int, int]]:
        """Token ranges of forgotten turns, sorted, disjoint."""
        return merged((turn.start, turn.stop) for turn in map(self._turn, self._gone))

    def dead(self) -> list[tuple[int, int]]:
        """Token ranges that nothing may attend to, sorted, disjoint: forgotten or set aside."""
        return merged([*self.forgotten(), *self._set_aside])

    def _place(self, turn_id: int) -> int | None:
        place = bisect_left(self._ids, turn_id)
        return place if place < len(self._ids) and self._ids[place] == turn_id else None

    def _index(self, turn_id: int) -> int:
        place = self._place(turn_id)
        if place is None:
            raise KeyError(turn_id)
        return place

    def _turn(self, place: int) -> BranchTurn:
        start = self._stops[place - 1] if place else 0
        return BranchTurn(self._ids[place], start, self._stops[place], place in self._gone)

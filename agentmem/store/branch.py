"""The turns of the current branch, root to head, as integers: which turn holds which tokens.

Pure bookkeeping: knows no text, no files and no SQLite.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from agentmem.store.extents import merged


@dataclass(frozen=True)
class BranchTurn:
    """One turn of a branch: its id, the tokens [start, stop) it added, and whether it was forgotten."""

    id: int
    start: int
    stop: int
    forgotten: bool = False


class Branch:
    """Turns in order; each starts where the one before it stopped.

    Args:
        turns: oldest first.
        set_aside: token ranges whose keys and values were lost; nothing may attend to them.
    """

    def __init__(self, turns: Iterable[BranchTurn] = (), set_aside: Iterable[tuple[int, int]] = ()) -> None:
        self._set_aside = list(set_aside)
        self._turns: list[BranchTurn] = []
        self._stops: list[int] = []
        self._ids: dict[int, int] = {}
        for turn in turns:
            self.append(turn)

    def __len__(self) -> int:
        return len(self._turns)

    def __contains__(self, turn_id: int) -> bool:
        return turn_id in self._ids

    @property
    def ids(self) -> list[int]:
        """Turn ids, oldest first."""
        return list(self._ids)

    @property
    def length(self) -> int:
        """Tokens in the branch."""
        return self._stops[-1] if self._stops else 0

    def append(self, turn: BranchTurn) -> None:
        """Add the newest turn."""
        if turn.start != self.length:
            raise ValueError(
                f"turn {turn.id} starts at {turn.start}, but the branch holds {self.length} tokens"
            )
        self._ids[turn.id] = len(self._turns)
        self._turns.append(turn)
        self._stops.append(turn.stop)

    def holding(self, position: int) -> int | None:
        """The id of the turn that holds a token; None outside the branch."""
        if not 0 <= position < self.length:
            return None
        return self._turns[bisect_right(self._stops, position)].id

    def overlapping(self, start: int, stop: int) -> list[BranchTurn]:
        """The turns that hold any of tokens [start, stop), in order."""
        found = []
        for turn in self._turns[bisect_right(self._stops, start) :]:
            if turn.start >= stop:
                break
            if min(turn.stop, stop) > max(turn.start, start):
                found.append(turn)
        return found

    def parent_of(self, turn_id: int) -> int | None:
        """The id of the turn before; None for the first."""
        index = self._ids[turn_id]
        return self._turns[index - 1].id if index else None

    def last_shared(self, other: Branch) -> int | None:
        """The id of the newest turn that both branches stand on; None when they share none."""
        shared = None
        for ours, theirs in zip(self._turns, other._turns, strict=False):
            if ours.id != theirs.id:
                break
            shared = ours.id
        return shared

    def forgotten(self) -> list[tuple[int, int]]:
        """Token ranges of forgotten turns, sorted, disjoint."""
        return merged((turn.start, turn.stop) for turn in self._turns if turn.forgotten)

    def dead(self) -> list[tuple[int, int]]:
        """Token ranges that nothing may attend to, sorted, disjoint: forgotten or set aside."""
        return merged([*self.forgotten(), *self._set_aside])

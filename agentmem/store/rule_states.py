"""What selection rules with running state are committed with: one row per turn of the index, checksummed.

A row goes in with its turn's transaction and out with its turn. Knows no rule: numbers per token and per
block go in and come out. Turns of rules without state have no row and cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from xxhash import xxh3_64

from agentmem.errors import DamagedError
from agentmem.memory.source import RuleState
from agentmem.store.branch import Branch
from agentmem.store.index import Index
from agentmem.store.schema import has_table

_REMEDY = "the checksum differs; go on with another selector, or from an earlier state"
_COLUMNS = "turn, kind, start, tokens, running, first, blocks, closed, sum"


class RuleStateRows:
    """Reads and writes the rows. Writing is done within a transaction of the index."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._there = has_table("rule_states", index.execute)

    def put(self, turn_id: int, state: RuleState) -> None:
        """Store a turn's state, in the place of one it may have."""
        running = state.running.numpy().astype("<f4", order="C").tobytes()
        closed = state.closed.numpy().astype("<i2", order="C").tobytes()
        numbers = (turn_id, state.kind, state.start, state.running.shape[1])
        self._index.execute(
            f"INSERT OR REPLACE INTO rule_states ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            (*numbers, running, state.first, len(state.closed), closed, _sum(running, closed)),
        )

    def get(self, turn_id: int, kind: str) -> RuleState | None:
        """A turn's state, if it has one of that kind. Raises DamagedError."""
        rows = self._select("turn = ?", (turn_id,))  # a condition on more would hide a damaged row
        if self._there and not rows:
            self._index.require_rows("rule_states")
        return self._state(rows[0]) if rows and rows[0][1] == kind else None

    def closed(self, branch: Branch, kind: str, but: Collection[int] = ()) -> list[tuple[int, Tensor]]:
        """(first block, closed) of a branch's turns that have a state of that kind, oldest first, ``but`` left out."""
        if self._there:
            self._index.require_counted("rule_states")
        names = self._select("TRUE ORDER BY turn", (), "turn, kind, blocks")
        wanted = [turn for turn, name, blocks in names if name == kind and blocks and turn in branch]
        states = [self._state(*self._select("turn = ?", (turn,))) for turn in wanted if turn not in but]
        return [(state.first, state.closed) for state in states]

    def wipe(self, gone: Iterable[tuple[int, int, int]], branch_of: Callable[[int], Branch]) -> None:
        """Forgotten turns (id, start, stop) had numbers in the states of later turns too: set them to zero."""
        for turn_id, start, stop in gone:
            for row in self._select("start < ? AND start + tokens > ?", (stop, start)):
                if row[0] != turn_id and turn_id in branch_of(row[0]):
                    state = self._state(row)
                    state.running[:, max(0, start - state.start) : max(0, stop - state.start)] = 0
                    self.put(row[0], state)

    def damaged(self) -> list[int]:
        """Turns whose state does not match its checksum."""
        if not self._there:
            return []
        rows = self._index.execute(f"SELECT {_COLUMNS} FROM rule_states")  # noqa: S608
        return [row[0] for row in rows if _sum(row[4], row[7]) != row[8]]

    def _select(self, condition: str, values: Sequence[Any], columns: str = _COLUMNS) -> list[Any]:
        if not self._there:
            return []
        try:
            return self._index.execute(f"SELECT {columns} FROM sealed_rule_states WHERE {condition}", values)  # noqa: S608
        except DamagedError as error:
            raise self._index.damage(error.where, _REMEDY) from error

    def _state(self, row: Any) -> RuleState:
        turn_id, kind, start, tokens, running, first, blocks, closed, stored = row
        if _sum(running, closed) != stored:
            raise self._index.damage(f"rule state of turn {turn_id}", _REMEDY)
        return RuleState(
            kind,
            start,
            torch.from_numpy(np.frombuffer(running, "<f4").astype(np.float32)).view(-1, tokens)
            if tokens
            else torch.empty(0, 0),
            first,
            torch.from_numpy(np.frombuffer(closed, "<i2").astype(np.int16)).view(blocks, -1)
            if blocks
            else torch.empty(0, 0, dtype=torch.int16),
        )


class BranchRuleStates:
    """The states along the branch a store stands on; see :class:`agentmem.memory.source.RuleStates`."""

    def __init__(self, rows: RuleStateRows, branch: Callable[[], Branch]) -> None:
        self._rows = rows
        self._branch = branch
        self._kept: RuleState | None = None
        self._staged: dict[int, RuleState | None] = {}

    def last(self, kind: str) -> RuleState | None:
        """What the newest committed turn left, if it is of that kind."""
        newest = self._branch().last
        if newest in self._staged:
            state = self._staged[newest]
            return state if state is not None and state.kind == kind else None
        return None if newest is None else self._rows.get(newest, kind)

    def closed(self, kind: str) -> Sequence[tuple[int, Tensor]]:
        """(first block, closed) of every committed turn that has them."""
        branch = self._branch()
        stored = self._rows.closed(branch, kind, self._staged)
        staged = [
            state for turn, state in sorted(self._staged.items()) if state is not None and turn in branch
        ]
        return stored + [(s.first, s.closed) for s in staged if s.kind == kind and len(s.closed)]

    def keep(self, state: RuleState) -> None:
        """What the open turn shall be committed with."""
        self._kept = state

    def stage(self, turn_id: int) -> None:
        """What was kept is a rebuilt turn's; until ``drop`` it stands for what is stored of that turn."""
        self._staged[turn_id], self._kept = self._kept, None

    def store_staged(self) -> None:
        """Write all that was staged; within the transaction of the rebuild."""
        for turn_id, state in self._staged.items():
            if state is not None:
                self._rows.put(turn_id, state)

    def store(self, turn_id: int) -> None:
        """Write what was kept; within the transaction of the turn."""
        if self._kept is not None:
            self._rows.put(turn_id, self._kept)

    def drop(self) -> None:
        """The turn is over: forget what was kept."""
        self._kept = None
        self._staged = {}


class NoRuleStates:
    """Rules start from nothing, and what they would keep is let go; see :class:`RuleStates`."""

    def last(self, kind: str) -> RuleState | None:
        """There is none."""
        return None

    def closed(self, kind: str) -> Sequence[tuple[int, Tensor]]:
        """There are none."""
        return ()

    def keep(self, state: RuleState) -> None:
        """Nothing comes of it."""


def _sum(running: bytes, closed: bytes) -> bytes:
    state = xxh3_64(running)
    state.update(closed)
    return state.intdigest().to_bytes(8, "little")

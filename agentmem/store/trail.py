"""The branch an agent stands on, in a few rows: which turns, and where their tokens lie.

The table ``trail`` says again what ``turns`` and ``extents`` say of the current branch, 128 turns to a row, so that
an opening needs not walk from turn to turn. Each commit appends to the last row. Whatever else changes a turn's place,
or whether it is forgotten, empties the table (triggers of the index itself see to that); a trail that is empty or ends
elsewhere than the head says nothing, and the next commit writes it anew. Each row is sealed like any other.
Knows integers; no text and no bytes of K/V.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from agentmem.store.branch import Branch, BranchTurn
from agentmem.store.extents import BranchMap, Extent
from agentmem.store.index import Index
from agentmem.store.schema import has_table

TURNS_A_ROW: Final = 128

_TURN: Final = np.dtype([("id", "<i8"), ("stop", "<i8"), ("forgotten", "<u1")])
_RUN: Final = np.dtype([("start", "<i8"), ("segment", "<i8"), ("slot", "<i8"), ("count", "<i8")])


class TrailRows:
    """Reads and writes the rows. Writing is done within the transaction that moves the head."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._there = has_table("trail", index.execute)

    def read(
        self, head: int, depth: int, length: int, set_aside: Sequence[tuple[int, int, int]]
    ) -> tuple[Branch, BranchMap] | None:
        """The branch of a head, and where its tokens lie; None when the rows are not about that branch.

        Args:
            head, depth, length: the head's number, how many turns there are up to it, and their tokens.
            set_aside: (turn, start, stop) of tokens whose K/V were lost.

        Raises:
            DamagedError: a row is not as it was written, or they contradict each other.
        """
        if not self._there:
            return None
        rows = self._index.execute("SELECT chunk, turns, runs FROM sealed_trail ORDER BY chunk")
        try:
            turns = np.frombuffer(b"".join(row[1] for row in rows), dtype=_TURN)
            if not len(turns) or int(turns["id"][-1]) != head:
                return None
            gone = turns["forgotten"].astype(np.bool_)
            ids, stops = (turns[name].astype(np.int64) for name in ("id", "stop"))
            branch = Branch.packed(ids, stops, gone, set_aside)
            mapped = BranchMap(Extent(*run) for row in rows for run in np.frombuffer(row[2], _RUN).tolist())
        except ValueError as error:
            raise self._index.damage("table trail", str(error)) from error
        if (len(branch), branch.length, mapped.length) != (depth, length, length):
            detail = f"it leads over {len(branch)} turns and {mapped.length} tokens, not {depth} and {length}"
            raise self._index.damage("table trail", detail)
        return branch, mapped

    def extend(self, branch: Branch, mapped: BranchMap, turn: BranchTurn) -> None:
        """A turn was committed after a branch; ``mapped`` has its tokens already."""
        if not self._there:
            return
        chunk, within = divmod(len(branch), TURNS_A_ROW)
        if not self._ends_with(branch.last, (len(branch) - 1) // TURNS_A_ROW):
            self.write(branch, mapped)
        new = _packed([turn])
        if not within:
            self._put(chunk, new, _runs(mapped, turn.start, turn.stop))
            return
        first = branch.turns(chunk * TURNS_A_ROW)
        start = first[0].start
        self._put(chunk, _packed(first) + new, _runs(mapped, start, turn.stop))

    def _ends_with(self, turn_id: int | None, chunk: int) -> bool:
        """Whether the last row is the one of that number, and ends with that turn."""
        rows = self._index.execute("SELECT chunk, turns FROM sealed_trail ORDER BY chunk DESC LIMIT 1")
        if turn_id is None or not rows:
            return turn_id is None and not rows
        return rows[0][0] == chunk and int(np.frombuffer(rows[0][1], dtype=_TURN)["id"][-1]) == turn_id

    def write(self, branch: Branch, mapped: BranchMap) -> None:
        """Say anew where a branch leads; ``mapped`` may go on after it."""
        if not self._there:
            return
        self._index.execute("DELETE FROM trail")
        turns = branch.turns()
        for at in range(0, len(turns), TURNS_A_ROW):
            row = turns[at : at + TURNS_A_ROW]
            self._put(at // TURNS_A_ROW, _packed(row), _runs(mapped, row[0].start, row[-1].stop))

    def _put(self, chunk: int, turns: bytes, runs: bytes) -> None:
        self._index.execute(
            "INSERT OR REPLACE INTO trail (chunk, turns, runs) VALUES (?, ?, ?)", (chunk, turns, runs)
        )


def _packed(turns: Sequence[BranchTurn]) -> bytes:
    return np.array([(turn.id, turn.stop, turn.forgotten) for turn in turns], dtype=_TURN).tobytes()


def _runs(mapped: BranchMap, start: int, stop: int) -> bytes:
    pieces = mapped.pieces(start, stop)
    return np.array([(one.start, one.segment, one.slot, one.count) for one in pieces], dtype=_RUN).tobytes()

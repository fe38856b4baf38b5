"""The index's rows beside the turns: marks, the audit, old state ids, and what is still to be done.

Writing is done within a transaction of the index. An index that is only read may be older than the tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from agentmem.errors import StateForgottenError
from agentmem.store.index import Index, encode_json
from agentmem.store.schema import columns_of
from agentmem.store.upkeep import AuditRow, Reason, TurnMarks

COMPACT = "compact"
"""The chore of rewriting the index without what was deleted from it."""


class UpkeepRows:
    """Reads and writes the tables of the fourth format."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._there = bool(columns_of("turn_marks", index.execute))

    def marks(self) -> dict[int, TurnMarks]:
        """Turns that expire or are pinned."""
        rows = (
            self._index.execute("SELECT turn, expires_at, pinned FROM sealed_turn_marks")
            if self._there
            else ()
        )
        return {turn: TurnMarks(expires_at, bool(pinned)) for turn, expires_at, pinned in rows}

    def set_expiry(self, turn_id: int, expires_at: str) -> None:
        """A new turn's end."""
        self._index.execute(
            "INSERT INTO turn_marks (turn, expires_at, pinned) VALUES (?, ?, 0)", (turn_id, expires_at)
        )

    def set_pin(self, turn_id: int, *, pinned: bool) -> None:
        """Whether retention must leave a turn alone."""
        self._index.execute(
            "INSERT INTO turn_marks (turn, expires_at, pinned) VALUES (?, NULL, ?) "
            "ON CONFLICT (turn) DO UPDATE SET pinned = excluded.pinned",
            (turn_id, int(pinned)),
        )

    def drop_marks(self, turn_ids: Iterable[int]) -> None:
        """Turns that are no more need none."""
        for turn_id in turn_ids:
            self._index.execute("DELETE FROM turn_marks WHERE turn = ?", (turn_id,))

    def audit(self) -> list[AuditRow]:
        """All rows, oldest first."""
        if not self._there:
            return []
        rows = self._index.execute("SELECT what, why, at, turns, tokens FROM sealed_audit ORDER BY id")
        return [AuditRow(what, why, at, json.loads(turns), tokens) for what, why, at, turns, tokens in rows]

    def add_audit(self, reason: Reason, turn_ids: Sequence[int], tokens: int) -> None:
        """One more thing that was dropped."""
        self._index.execute(
            "INSERT INTO audit (what, why, at, turns, tokens) VALUES (?, ?, ?, ?, ?)",
            (reason.what, reason.why, reason.at, encode_json(list(turn_ids)), tokens),
        )

    def now(self, state_id: str) -> str:
        """The id of a state as it is now: another one after a rebuild. Raises StateForgottenError."""
        sql = "SELECT new FROM sealed_moved_states WHERE old = ?"
        rows = self._index.execute(sql, (state_id,)) if self._there else ()
        if rows and rows[0][0] is None:
            raise StateForgottenError(f"state {state_id!r} was forgotten and cannot be returned to")
        return str(rows[0][0]) if rows else state_id

    def move_states(self, moved: Mapping[str, str | None]) -> None:
        """Old state ids now lead to new ones, or (None) to nothing; those that led to an old one are led on."""
        for old, new in moved.items():
            self._index.execute("UPDATE moved_states SET new = ? WHERE new = ?", (new, old))
            self._index.execute("INSERT OR REPLACE INTO moved_states (old, new) VALUES (?, ?)", (old, new))

    def due(self) -> bool:
        """Whether the index is still to be rewritten without what was deleted."""
        return self._there and bool(
            self._index.execute("SELECT 1 FROM sealed_chores WHERE name = ?", (COMPACT,))
        )

    def set_due(self, *, due: bool) -> None:
        """Say so."""
        change = (
            "INSERT OR IGNORE INTO chores (name) VALUES (?)" if due else "DELETE FROM chores WHERE name = ?"
        )
        self._index.execute(change, (COMPACT,))

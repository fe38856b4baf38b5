"""The index: one SQLite connection, its transactions, and the single-row facts of an agent.

Every change is made in :meth:`Index.transaction`: BEGIN IMMEDIATE, then the epoch is compared, then
COMMIT. Knows how SQLite's errors map to ours; nothing of tensors or files of K/V.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from sqlite_utils import Database

from agentmem.errors import (
    ClosedError,
    DamagedError,
    InputError,
    ReadOnlyError,
    StaleWriterError,
    StoreError,
)
from agentmem.memory.source import KVLayout
from agentmem.store.base import AgentIdentity, Json
from agentmem.store.failures import of_sqlite

_READER_MILLISECONDS = 200
"""How long a reader may keep the log from being emptied before that is left for later."""
_DTYPES = {str(dtype): dtype for dtype in (torch.bfloat16, torch.float16, torch.float32)}


def encode_json(value: Json) -> str:
    """A value as JSON text. Raises InputError when it is not plain JSON."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise InputError(f"cannot be stored as JSON: {error}") from error
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: kept, but escaped
        text = json.dumps(value, separators=(",", ":"))
    return text


class Index:
    """One open index. ``epoch`` None: read-only."""

    def __init__(self, db: Database, agent_id: str, *, read_only: bool) -> None:
        self._db = db
        self._agent_id = agent_id
        self._refusal: str | None = None
        self._closed = False
        self._parked = False
        self._epoch: int | None = None
        if not read_only:
            self._epoch = self._claim()

    @property
    def read_only(self) -> bool:
        """True when nothing may be changed."""
        return self._epoch is None

    def execute(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of one statement. Raises DamagedError, AgentBusyError, StoreError for SQLite's errors."""
        if self._closed:
            raise ClosedError(f"agent {self._agent_id!r} was closed; open it again")
        if self._parked:
            raise ClosedError(f"agent {self._agent_id!r} is parked; unpark() it first")
        try:
            return self._db.conn.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise of_sqlite(self._agent_id, error) from error

    def row(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """The only row of a statement. Raises DamagedError when there is none."""
        rows = self.execute(sql, values)
        if not rows:
            raise self.damage("its single-row tables", "a row is missing")
        return rows[0]

    def damage(self, where: str, detail: str) -> DamagedError:
        """The error for an index that contradicts itself."""
        return DamagedError(self._agent_id, "agent.db", where, detail)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes in the block, or none. Raises StaleWriterError, ReadOnlyError."""
        if self._epoch is None:
            raise ReadOnlyError(f"agent {self._agent_id!r} was opened read-only; open it for writing")
        if self._refusal is not None:
            raise StoreError(self._refusal)
        with self._immediate():
            (epoch,) = self.row("SELECT epoch FROM state")
            if epoch != self._epoch:
                raise StaleWriterError(
                    f"agent {self._agent_id!r} was taken over by a later writer (epoch {epoch}, ours "
                    f"{self._epoch}); nothing was committed. Open it again."
                )
            yield

    def park(self) -> None:
        """Refuse everything until ``unpark``: other writers may change what is here."""
        self._parked = True

    def unpark(self) -> bool:
        """Allow everything again; whether no other writer has opened the index since this one did."""
        self._parked = False
        (epoch,) = self.row("SELECT epoch FROM state")
        return bool(epoch == self._epoch)

    def refuse(self, reason: str) -> None:
        """From now on no transaction may begin: what is on disk is not known for sure."""
        self._refusal = (
            f"agent {self._agent_id!r}: {reason}. Nothing more is committed through this opening; "
            "close the agent and open it again."
        )

    def identity(self) -> AgentIdentity:
        """Who this is."""
        agent_id, uuid, created_at, fingerprint, layers, dtype, model, facts = self.row(
            "SELECT agent_id, uuid, created_at, fingerprint, layers, dtype, model, facts FROM identity"
        )
        layout = KVLayout(tuple((heads, dim) for heads, dim in json.loads(layers)), _DTYPES[dtype])
        return AgentIdentity(
            agent_id, uuid, created_at, json.loads(fingerprint), layout, model, json.loads(facts)
        )

    def file_sizes(self) -> tuple[int, int]:
        """(token slots in a segment, blocks in a digest file)."""
        tokens, blocks = self.row("SELECT segment_tokens, digest_blocks FROM identity")
        return tokens, blocks

    def head(self) -> int | None:
        """The id of the head turn."""
        (head,) = self.row("SELECT head FROM state")
        return None if head is None else int(head)

    def set_head(self, turn_id: int | None) -> None:
        """Move the head; within a transaction."""
        self.execute("UPDATE state SET head = ?", (turn_id,))

    def note(self, key: str, value: Json) -> None:
        """Store a named value; a transaction of its own."""
        text = encode_json(value)
        with self.transaction():
            self.execute("INSERT OR REPLACE INTO notes (key, value) VALUES (?, ?)", (key, text))

    def noted(self, key: str) -> Json:
        """A named value; None when there is none."""
        rows = self.execute("SELECT value FROM notes WHERE key = ?", (key,))
        return json.loads(rows[0][0]) if rows else None

    def compact(self) -> bool:
        """Rewrite the file without free pages and empty the write-ahead log, so that no deleted text stays.

        False when a reader stands in a transaction: the log, and what it would replace, stay until a later call.
        """
        self.execute("VACUUM")
        (patience,) = self.row("PRAGMA busy_timeout")
        self.execute(f"PRAGMA busy_timeout = {_READER_MILLISECONDS}")
        try:
            blocked, *_ = self.row("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self.execute(f"PRAGMA busy_timeout = {patience}")
        return not blocked

    def close(self) -> None:
        """Close the connection; closing twice is fine."""
        if not self._closed:
            self._closed = True
            self._db.close()

    def _claim(self) -> int:
        with self._immediate():
            self.execute("UPDATE state SET epoch = epoch + 1")
            (epoch,) = self.row("SELECT epoch FROM state")
        return int(epoch)

    @contextmanager
    def _immediate(self) -> Iterator[None]:
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._roll_back()
            raise
        try:
            self.execute("COMMIT")
        except BaseException:
            # whether it is on disk is unknown until the next opening reads the write-ahead log
            self.refuse("SQLite could not finish a commit")
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self._db.conn.in_transaction:
            self._db.conn.execute("ROLLBACK")

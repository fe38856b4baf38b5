"""The index: one SQLite connection, its transactions, and the single-row facts of an agent.

Every change is made in :meth:`Index.transaction`: BEGIN IMMEDIATE, then the epoch is compared, then
COMMIT. Knows how SQLite's errors map to ours; nothing of tensors or files of K/V.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlite_utils import Database

from agentmem.errors import (
    ClosedError,
    DamagedError,
    InputError,
    ReadOnlyError,
    ShapeError,
    StaleWriterError,
    StoreError,
)
from agentmem.store.base import AgentIdentity, Json
from agentmem.store.connection import file_flaws_of, seals_of
from agentmem.store.failures import elsewhere, of_sqlite
from agentmem.store.layout_text import layout_of
from agentmem.store.mark import CommitMark
from agentmem.store.seals import RAISED

_OFF: Final = 0
_NORMAL: Final = 1
"""SQLite's ``synchronous`` that leaves the syncing of a commit in WAL mode to the next one that is FULL."""
_READER_MILLISECONDS = 200
"""How long a reader may keep the log from being emptied before that is left for later."""
_LONG: Final = ("turns", "tokens", "words", "pages", "rule_states")
"""Tables that grow with the history by more than a few bytes a turn: counted when first walked over."""


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
    """One open index. ``epoch`` None: read-only.

    Args:
        db: from ``open_database``.
        agent_id: for messages.
        read_only: nothing may be changed.
        folder: where it is noted what was acknowledged last; None: nowhere.

    Raises:
        DamagedError: tables, rows or acknowledged commits are missing.
    """

    def __init__(self, db: Database, agent_id: str, *, read_only: bool, folder: Path | None = None) -> None:
        self._db = db
        self._agent_id = agent_id
        self._refusal: str | None = None
        self._closed = False
        self._parked = False
        self._process = os.getpid()
        self._epoch: int | None = None
        self._seals = seals_of(db.conn)
        self._uncounted = {*_LONG}
        self._mark = None if folder is None else CommitMark(folder, agent_id)
        self._check_whole(0 if self._mark is None else self._mark.read())
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
        if os.getpid() != self._process:  # SQLite forbids to carry a connection over a fork
            raise elsewhere(self._agent_id)
        try:
            rows = self._db.conn.execute(sql, values).fetchall()
            broken = self._seals.broken(self._db.conn.execute)
        except (sqlite3.Error, UnicodeError) as error:
            if (interrupt := self._seals.interrupted()) is not None:
                raise interrupt from None
            if str(error) == RAISED and sql.startswith("SELECT") and self._works_now(sql, values):
                raise KeyboardInterrupt from None  # at the first instruction of a check, before it could be noted
            raise of_sqlite(self._agent_id, error) from error
        if broken is not None:
            raise self.damage(*broken)
        return rows

    def _works_now(self, sql: str, values: Sequence[Any]) -> bool:
        """Whether a question that failed is answered when it is asked again; damage would fail it again."""
        try:
            self._db.conn.execute(sql, values).fetchall()
        except (sqlite3.Error, UnicodeError):
            return False
        return True

    def row(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """The only row of a statement. Raises DamagedError when there is none."""
        rows = self.execute(sql, values)
        if not rows:
            raise self.damage("its single-row tables", "a row is missing")
        return rows[0]

    def require_rows(self, table: str) -> None:
        """Before "it is not there" is believed: is the table as it was written? Raises DamagedError."""
        if not self._seals.there:
            return
        with self.snapshot():
            for where, detail in self._seals.flaws(self.execute):
                raise self.damage(where, detail)
            for where, detail in self._row_flaws([table]):  # a row may be there under another key
                raise self.damage(where, detail)
            for (problem,) in self.execute(f"PRAGMA integrity_check({table})"):
                if problem != "ok":
                    raise self.damage(f"table {table}", problem)

    def _row_flaws(self, tables: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Rows that are not as they were written, past the check of each row as it is read. Raises as :meth:`execute`."""
        try:
            yield from self._seals.row_flaws(self._db.conn.execute, tables)
        except (sqlite3.Error, UnicodeError) as error:
            raise of_sqlite(self._agent_id, error) from error

    def require_counted(self, table: str) -> None:
        """Before a long table is walked over: has it as many rows as were written? Raises DamagedError."""
        if table in self._uncounted:
            with self.snapshot():
                for where, detail in self._seals.miscounted(table, self.execute):
                    raise self.damage(where, detail)
            self._uncounted.discard(table)

    def flaws(self) -> Iterator[tuple[str, str]]:
        """(where, what) of rows and tables that are not as they were written. Reads every row."""
        try:
            with self.snapshot():
                yield from self._seals.flaws(self.execute)
                yield from self._seals.row_flaws(self._db.conn.execute)
            yield from file_flaws_of(self._db.conn)
        except (sqlite3.Error, UnicodeError) as error:
            raise of_sqlite(self._agent_id, error) from error

    def require_whole(self) -> None:
        """Before anything is erased by what the index says: is all of it as written? Raises DamagedError."""
        for where, detail in self.flaws():
            raise self.damage(where, detail)
        for (problem,) in self.execute("PRAGMA integrity_check") if self._seals.there else ():
            if problem != "ok":
                raise self.damage("the index", problem)

    def damage(self, where: str, detail: str) -> DamagedError:
        """The error for an index that contradicts itself."""
        return DamagedError(self._agent_id, "agent.db", where, detail)

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Every statement in the block reads the same state, whatever a writer commits meanwhile."""
        if self._db.conn.in_transaction:
            yield
            return
        self.execute("BEGIN")
        try:
            yield
        finally:
            self._roll_back()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes in the block, or none. Raises StaleWriterError, ReadOnlyError."""
        if self._epoch is None:
            raise ReadOnlyError(f"agent {self._agent_id!r} was opened read-only; open it for writing")
        if self._refusal is not None:
            raise StoreError(self._refusal)
        with self._immediate():
            epoch, commits = self.row("SELECT epoch, commits FROM sealed_state")
            if epoch != self._epoch:
                raise StaleWriterError(
                    f"agent {self._agent_id!r} was taken over by a later writer (epoch {epoch}, ours "
                    f"{self._epoch}); nothing was committed. Open it again."
                )
            self.execute("UPDATE state SET commits = ?", (commits + 1,))
            yield
        self._acknowledge(commits + 1)

    def park(self) -> None:
        """Refuse everything until ``unpark``: other writers may change what is here."""
        self._parked = True

    def unpark(self) -> bool:
        """Allow everything again; whether no other writer has opened the index since this one did."""
        self._parked = False
        (epoch,) = self.row("SELECT epoch FROM sealed_state")
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
            "SELECT agent_id, uuid, created_at, fingerprint, layers, dtype, model, facts FROM sealed_identity"
        )
        try:
            layout = layout_of(layers, dtype)
            known = json.loads(fingerprint), json.loads(facts)
        except (ValueError, TypeError, KeyError, RecursionError, ShapeError) as error:
            raise self.damage("table identity", f"it says what it cannot say ({error!r})") from error
        return AgentIdentity(agent_id, uuid, created_at, known[0], layout, model, known[1])

    def file_sizes(self) -> tuple[int, int]:
        """(token slots in a segment, blocks in a digest file)."""
        tokens, blocks = self.row("SELECT segment_tokens, digest_blocks FROM sealed_identity")
        return tokens, blocks

    def commits(self) -> int:
        """How many transactions there were, by any writer; 0 as long as nobody counts them."""
        return int(self.row("SELECT commits FROM sealed_state")[0]) if self._seals.there else 0

    def decoded(self, text: str, where: str) -> Json:
        """A value that was stored as JSON. Raises DamagedError."""
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self.damage(where, f"it is not JSON ({error})") from error

    def head(self) -> int | None:
        """The id of the head turn."""
        (head,) = self.row("SELECT head FROM sealed_state")
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
        rows = self.execute("SELECT value FROM sealed_notes WHERE key = ?", (key,))
        if not rows:
            self.require_rows("notes")
        return self.decoded(rows[0][0], f"note {key!r}") if rows else None

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
        """Raise the epoch. Not synced, nor marked as acknowledged: a power cut leaves no older writer to be refused.

        The first commit of a turn syncs it too. Only a log that is begun anew over an older one has its header
        synced here (SQLite ticket ff5be73dee).
        """
        (synchronous,) = self.row("PRAGMA synchronous")
        self.execute(f"PRAGMA synchronous = {min(synchronous, self._claim_synchronous())}")
        try:
            with self._immediate():
                self.execute("UPDATE state SET epoch = epoch + 1, commits = commits + 1")
                (epoch,) = self.row("SELECT epoch FROM sealed_state")
        finally:
            self.execute(f"PRAGMA synchronous = {synchronous}")
        return int(epoch)

    def _claim_synchronous(self) -> int:
        try:
            empty = self._mark is None or self._mark.path.with_name("agent.db-wal").stat().st_size == 0
        except FileNotFoundError:
            empty = True
        return _OFF if empty else _NORMAL

    def _acknowledge(self, commit: int) -> None:
        if self._mark is not None:
            self._mark.write(commit)

    def _check_whole(self, marked: int) -> None:
        """Raise DamagedError when tables, rows or commits are missing; long tables are not read."""
        with self.snapshot():
            for where, detail in self._seals.flaws(self.execute, _LONG):
                raise self.damage(where, detail)
            if self._seals.there and self._mark is not None:
                self._mark.compare(marked, self.row("SELECT commits FROM sealed_state")[0])

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

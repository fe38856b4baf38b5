"""What is left of a damaged encrypted index: every record that is what was written, in order.

Only what is authenticated is taken: parts of the snapshot as rows, then the transactions after it, each run again. A
record that is gone is passed over and said. Nothing plain is written anywhere. Knows records and tables; not what a
row means, but that a turn's number is the one its token ids were stored under.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from agentmem.errors import DamagedError
from agentmem.store.cipher import NONCE_BYTES, TAG_BYTES, Cipher
from agentmem.store.connection import IndexConnection
from agentmem.store.encrypted_index import (
    FIRST_RECORD,
    INDEX_FILE,
    SNAPSHOT_PART,
    bound_of,
    connect_encrypted,
    file_id_of,
    opened_record,
    size_at,
    value_of,
    write_encrypted,
)
from agentmem.store.files import opened, read_all, sync_folder
from agentmem.store.keys import DataKey
from agentmem.store.salvage_places import Columns
from agentmem.store.salvage_rows import SavedTable, saved_tables
from agentmem.store.schema import create_database
from agentmem.store.seals import Seals

_WINDOW = 1 << 20
"""How far behind a damaged record the next one is looked for."""


class EncryptedPlace:
    """See :class:`agentmem.store.salvage_places.IndexPlace`; ``key`` is the agent's own."""

    def __init__(self, folder: Path, agent_id: str, workshop: Path, key: DataKey) -> None:
        self._folder = folder
        self._agent_id = agent_id
        self._workshop = workshop
        self._key = key
        self._losses: list[str] = []

    @property
    def losses(self) -> Sequence[str]:
        """What of the file could not be read, beside rows."""
        return self._losses

    def saved(self, columns: Columns) -> dict[str, SavedTable]:
        """What is left of each table. Raises OSError, DamagedError."""
        found = self.authenticated(columns)
        if not found["identity"].rows:
            found["identity"] = self._stub(columns)
        return found

    def authenticated(self, columns: Columns) -> dict[str, SavedTable]:
        """What is left of each table in the encrypted file alone. Raises OSError, DamagedError."""
        with opened(self._folder / INDEX_FILE, os.O_RDONLY) as fd:
            data = read_all(fd, os.fstat(fd).st_size, 0)
        parts: list[bytes | None] = []
        later: list[bytes | None] = []
        for where, plain in self._records(data):
            if plain is None:
                self._losses.append(f"{INDEX_FILE}: {where} cannot be read")
            if later or (plain is not None and plain[:1] == b"t"):
                later.append(plain)
            else:
                parts.append(plain)
        if not any(parts) and not later:
            raise DamagedError(
                self._agent_id, INDEX_FILE, "the whole file", "no record of it is what was written"
            )
        with closing(self._empty(columns)) as conn:
            _fill(conn, _image_rows(parts, columns), columns)
            for plain in later:
                if plain is not None:
                    _run_again(conn, json.loads(plain[1:]))
            return saved_tables(conn, columns)

    @contextmanager
    def filling(self) -> Iterator[sqlite3.Connection]:
        """An empty index out of sight, to be filled; whole on the medium after the block."""
        new = self._workshop / INDEX_FILE
        with closing(create_database(self._workshop / "tables.db")) as tables:
            write_encrypted(new, tables.conn, self._key)
        with closing(connect_encrypted(new, self._agent_id, self._key, read_only=False)) as conn:
            with conn.muted():
                yield conn
            conn.rewrite()

    def swap(self) -> None:
        """Put what was filled in the place of the old index, in one step. Raises OSError."""
        sync_folder(self._folder / "kv")
        os.replace(self._workshop / INDEX_FILE, self._folder / INDEX_FILE)
        sync_folder(self._folder)

    def _records(self, data: bytes) -> Iterator[tuple[str, bytes | None]]:
        """(where, content) of each record in order; None for one that is not what was written."""
        cipher, file_id = self._key.cipher("index"), file_id_of(data)
        at, number, chain = FIRST_RECORD, 0, b""
        while at < len(data):
            plain = opened_record(cipher, file_id, number, chain, data, at)
            size = size_at(data, at)
            stop = None if size is None else at + 4 + size
            tag = None
            if plain is None and stop is not None:
                plain, tag = self._confirmed(cipher, file_id, number, chain, data[at + 4 : stop], data[stop:])
            if plain is None and (stop is None or not self._fits(cipher, file_id, number + 1, data, stop)):
                found = self._next(cipher, file_id, number + 1, data, at)
                stop = found if found is not None else stop
            yield f"bytes {at} to {stop or len(data)}", plain
            if stop is None:
                return
            at, number, chain = stop, number + 1, tag or data[stop - TAG_BYTES : stop]

    def _confirmed(
        self, cipher: Cipher, file_id: bytes, number: int, chain: bytes, record: bytes, behind: bytes
    ) -> tuple[bytes | None, bytes | None]:
        """(content, tag) of a record whose tag alone was changed: the record behind it is bound to the right one."""
        nonce, bound = record[:NONCE_BYTES], bound_of(file_id, number, chain)
        plain = cipher.encrypt(nonce, record[NONCE_BYTES:-TAG_BYTES], bound)[:-TAG_BYTES]  # its own inverse
        tag = cipher.encrypt(nonce, plain, bound)[-TAG_BYTES:]
        confirmed = opened_record(cipher, file_id, number + 1, tag, behind, 0) is not None
        return (plain, tag) if confirmed else (None, None)

    def _fits(self, cipher: Cipher, file_id: bytes, number: int, data: bytes, at: int) -> bool:
        """Whether the record of that number begins at a place."""
        return opened_record(cipher, file_id, number, data[at - TAG_BYTES : at], data, at) is not None

    def _next(self, cipher: Cipher, file_id: bytes, number: int, data: bytes, at: int) -> int | None:
        """Where the record of that number begins, somewhere behind a damaged one whose length is lost."""
        window = np.frombuffer(data[at + 32 : at + 32 + _WINDOW], dtype=np.uint8).astype(np.int64)
        if len(window) < 4:
            return None
        sizes = window[:-3] + (window[1:-2] << 8) + (window[2:-1] << 16) + (window[3:] << 24)
        for place in (np.flatnonzero(sizes <= _WINDOW) + at + 32).tolist():
            if self._fits(cipher, file_id, number, data, place):
                return int(place)
        return None

    def _empty(self, columns: Columns) -> IndexConnection:
        """Our tables, empty, in memory."""
        conn = sqlite3.connect(":memory:", isolation_level=None, factory=IndexConnection)
        with closing(create_database(self._workshop / "again.db")) as tables:
            tables.conn.backup(conn)
        conn.execute("PRAGMA foreign_keys = OFF")
        conn.execute("PRAGMA recursive_triggers = ON")
        conn.seals = Seals(conn, read_only=False)
        return conn

    def _stub(self, columns: Columns) -> SavedTable:
        """Who it is, as lists show it without a key."""
        with closing(sqlite3.connect(f"file:{self._folder / 'agent.db'}?mode=ro", uri=True)) as conn:
            return saved_tables(conn, {"identity": columns["identity"]})["identity"]


def _image_rows(parts: Sequence[bytes | None], columns: Columns) -> dict[str, SavedTable]:
    """The rows of a snapshot; a part that is gone reads as zeros."""
    image = b"".join(bytes(SNAPSHOT_PART) if part is None else part[1:] for part in parts)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        if image:
            with suppress(sqlite3.Error):
                conn.deserialize(image)
                conn.execute("PRAGMA writable_schema = ON")
        return saved_tables(conn, columns)


def _fill(conn: sqlite3.Connection, saved: dict[str, SavedTable], columns: Columns) -> None:
    """Put saved rows into empty tables."""
    conn.execute("DELETE FROM state")
    for name, table in saved.items():
        for number, row in table.rows.items():
            known = [column for column in row if column in columns[name]]
            marks = ", ".join("?" for _ in known)
            conn.execute(
                f"INSERT OR REPLACE INTO {name} (rowid, {', '.join(known)}) VALUES (?, {marks})",  # noqa: S608
                [number, *(row[column] for column in known)],
            )


def _run_again(conn: sqlite3.Connection, statements: Sequence[tuple[str, Sequence[Any]]]) -> None:
    """One transaction of a log that may lack earlier ones; what does not fit what is left is passed over."""
    conn.execute("BEGIN IMMEDIATE")
    for place, (sql, values) in enumerate(statements):
        if sql.startswith("INSERT INTO turns "):
            number = _turn_number(statements[place + 1 :])
            if number is None:
                break
            conn.execute("DELETE FROM sqlite_sequence WHERE name = 'turns'")
            conn.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('turns', ?)", (number - 1,))
        with suppress(sqlite3.Error):
            conn.execute(sql, [value_of(value) for value in values]).fetchall()
    conn.execute("COMMIT")


def _turn_number(statements: Iterable[tuple[str, Sequence[Any]]]) -> int | None:
    """The number that a turn got: its token ids are stored next, under it."""
    return next((int(values[0]) for sql, values in statements if sql.startswith("INSERT INTO tokens ")), None)

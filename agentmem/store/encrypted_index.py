"""The index of an encrypted agent: SQLite in memory, and on disk one file of encrypted records.

The first records are the database as it was when the file was written, in parts of 64 KB; each later one holds the
statements of one transaction, appended and synced before COMMIT returns. Opening decrypts them and runs them again. Every
record is bound to its file, its number and the record before it, so none can be changed, moved, left out or
put back from an older copy. What remains to somebody who can write the files is to put back a whole older
state; cutting off the newest records is noticed by :mod:`agentmem.store.mark` unless that is put back too.
Nothing plain is ever on disk, the words for full-text search included. Knows SQLite and bytes; no table.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sqlite3
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from agentmem.errors import DamagedError
from agentmem.store.cipher import NONCE_BYTES, TAG_BYTES, Cipher
from agentmem.store.connection import IndexConnection
from agentmem.store.failures import typed, unreadable
from agentmem.store.files import opened, read_all, sync_file, sync_folder, write_all
from agentmem.store.keys import DataKey
from agentmem.store.seals import Seals

INDEX_FILE = "agent.enc"
_MAGIC = b"AgMmEnc\x01"
FIRST_RECORD = len(_MAGIC) + 16
SNAPSHOT_PART = 1 << 16
"""Bytes of the database in each record of a snapshot but the last: what is damaged costs no more than these."""
_WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE", "CREATE", "DROP", "ALTER")
_REWRITE_BYTES = 1 << 20
"""A log of more bytes than this, and than the snapshot before it, becomes a snapshot when the agent is closed."""
_SETTINGS = (
    "foreign_keys = 1",
    "trusted_schema = 0",
    "cell_size_check = 1",
    "temp_store = 2",
    "recursive_triggers = 1",
)


class EncryptedConnection(IndexConnection):
    """A connection to a database in memory that follows a file of encrypted records; see :func:`connect_encrypted`."""

    path: Path
    agent_id: str
    cipher: Cipher | None = None
    read_only: bool = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._key = DataKey(b"", "")
        self._statements: list[tuple[str, Sequence[Any]]] = []
        self._muted = False
        self._file_id = b""
        self._number = 0  # records there are
        self._chain = b""  # the tag of the last one
        self._image = bytearray()  # as much as was read of a snapshot
        self._end = self._snapshot_end = 0
        self._seen = (0, 0)
        self._fd = -1

    def execute(self, sql: str, values: Any = (), /) -> sqlite3.Cursor:
        """Run a statement; at COMMIT all that were run since BEGIN are made durable. Raises sqlite3.Error."""
        if self.cipher is None or self._muted:
            return super().execute(sql, values)
        verb = sql.split(None, 1)[0].upper()
        if not self.in_transaction:
            self._follow()
        if verb == "COMMIT":
            self._append()
        cursor = super().execute(sql, values)
        if verb in _WRITES:
            self._statements.append((sql, tuple(values)))
            if not self.in_transaction:
                self._append()
        elif verb in ("BEGIN", "ROLLBACK"):
            self._statements = []
        elif verb == "VACUUM" and not self.read_only:
            self.rewrite()
        return cursor

    @contextmanager
    def muted(self) -> Iterator[None]:
        """Statements in the block change what is in memory alone; call ``rewrite`` to keep it."""
        self._muted = True
        try:
            yield
        finally:
            self._muted = False

    def rewrite(self) -> None:
        """Make the file anew as one snapshot: nothing that was deleted stays. Raises sqlite3.OperationalError."""
        try:
            self._replace()
        except OSError as error:
            raise _failed(error) from error

    def follow(self, key: DataKey) -> None:
        """From now on be what the file holds. Raises DamagedError, MissingExtraError."""
        self._key, self.cipher = key, key.cipher("index")
        self.load()

    def load(self) -> None:
        """Decrypt the file, or what was added to it, and run it. Raises DamagedError, StoreError."""
        try:
            with opened(self.path, os.O_RDONLY) as fd:
                found = os.fstat(fd)
                self._end = self._read(fd, found.st_size)
        except OSError as error:
            raise unreadable(self.agent_id, self.path.name, "the whole file", "read", error) from error
        self._seen = (found.st_ino, found.st_size)
        if not self.read_only:
            self._let_go()
            with typed(self.agent_id, "opening the index"):
                self._fd = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)

    def _read(self, fd: int, size: int) -> int:
        """Run the records that were not run yet, one after the other; returns where they end. Raises OSError."""
        head = read_all(fd, FIRST_RECORD, 0)
        if len(head) < FIRST_RECORD or not head.startswith(_MAGIC):
            raise self._damaged("the header", "it is not the one it was made with")
        file_id, at = file_id_of(head), self._end
        if file_id != self._file_id or at > size:
            self._file_id, self._number, self._chain, at = file_id, 0, b"", FIRST_RECORD
            self._image = bytearray()
        while (
            record := _record_at(fd, at, size)
        ) is not None:  # one that was never finished was told to nobody
            plain = self._opened(record, at)
            at += len(record)
            if plain[:1] == b"s":
                self._snapshot_end = at
            self._run(plain)
        if self._image or not self._number:
            raise self._damaged(f"bytes {FIRST_RECORD} on", "the snapshot is not there in full")
        return at

    @property
    def standing(self) -> tuple[bytes, int, bytes]:
        """Which file, how many records, and the tag of the last one."""
        return self._file_id, self._number, self._chain

    def file_flaws(self) -> Iterator[tuple[str, str]]:
        """(where, what): the file is read and decrypted once more, and compared with what is here."""
        again = connect_encrypted(self.path, self.agent_id, self._key, read_only=True)
        with closing(again):
            if again.standing != self.standing:
                yield f"record {again.standing[1]} on", "acknowledged records are not there"

    def close(self) -> None:
        """Close; closing twice is fine."""
        if self._fd >= 0:
            if self._end - self._snapshot_end > max(_REWRITE_BYTES, self._snapshot_end):
                with suppress(OSError):
                    self._replace()
            self._let_go()
        super().close()

    # -- reading --------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Take up what another writer committed meanwhile."""
        with typed(self.agent_id, "reading the index"), suppress(FileNotFoundError):
            found = self.path.stat()
            if (found.st_ino, found.st_size) != self._seen:
                self.load()

    def _opened(self, record: bytes, at: int) -> bytes:
        assert self.cipher is not None
        plain = opened_record(self.cipher, self._file_id, self._number, self._chain, record, 0)
        if plain is None:
            raise self._damaged(f"bytes {at} to {at + len(record)}", "it was changed")
        self._number, self._chain = self._number + 1, record[-TAG_BYTES:]
        return plain

    def _run(self, plain: bytes) -> None:
        if plain[:1] in (b"p", b"s"):
            self._image += memoryview(plain)[1:]
        if plain[:1] == b"s":
            with closing(sqlite3.connect(":memory:")) as image:
                image.deserialize(self._image)
                self._image = bytearray()  # it is copied, and the next copy needs its room
                image.backup(self)  # a deserialized database could not grow beyond 1 GB
            if self.seals is None:  # what it put into the connection outlives what is in the database
                with self.muted():
                    self.seals = Seals(self, read_only=False)
        if plain[:1] in (b"p", b"s"):
            return
        with self.muted():
            self.execute("BEGIN")
            for sql, values in json.loads(plain[1:]):
                self.execute(sql, [value_of(value) for value in values])
            self.execute("COMMIT")

    # -- writing --------------------------------------------------------------------------------------

    def _append(self) -> None:
        """Make the statements durable as one record. Raises sqlite3.OperationalError."""
        if not self._statements:
            return
        if self.read_only:
            raise sqlite3.OperationalError("attempt to write a readonly database")
        rows = [(sql, [_json(value) for value in values]) for sql, values in self._statements]
        assert self.cipher is not None
        bound = bound_of(self._file_id, self._number, self._chain)
        record = _record(self.cipher, b"t" + json.dumps(rows).encode(), bound)
        try:
            if self._seen[1] > self._end:  # a record that was never finished lies there
                os.ftruncate(self._fd, self._end)
            write_all(self._fd, record, self._end)
            sync_file(self._fd)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._fd, self._end)
            raise _failed(error) from error
        self._number, self._chain = self._number + 1, record[-TAG_BYTES:]
        self._end += len(record)
        self._seen = (self._seen[0], self._end)
        self._statements = []

    def _replace(self) -> None:
        """A new file in the place of the old one. Raises OSError; then the old one is as it was."""
        assert self.cipher is not None
        new = self.path.with_name(self.path.name + ".new")
        new.unlink(missing_ok=True)
        file_id, fd = secrets.token_bytes(16), -1
        try:
            records = _snapshot(self.cipher, file_id, image_of(self))
            data = b"".join((_MAGIC, file_id, *records))
            fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            write_all(fd, data, 0)
            sync_file(fd)
            new.replace(self.path)
            sync_folder(self.path.parent)
        except BaseException:
            if fd >= 0:
                os.close(fd)
            raise
        self._let_go()
        self._fd, self._file_id = fd, file_id
        self._number, self._chain = len(records), data[-TAG_BYTES:]
        self._end = self._snapshot_end = len(data)
        self._seen = (os.fstat(fd).st_ino, self._end)

    def _let_go(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _damaged(self, where: str, detail: str) -> DamagedError:
        return DamagedError(self.agent_id, self.path.name, where, detail)


def connect_encrypted(path: Path, agent_id: str, key: DataKey, *, read_only: bool) -> EncryptedConnection:
    """A connection to an agent's encrypted index. Raises DamagedError."""
    conn = sqlite3.connect(
        ":memory:", isolation_level=None, check_same_thread=False, factory=EncryptedConnection
    )
    for setting in _SETTINGS:
        conn.execute(f"PRAGMA {setting}")
    conn.path, conn.agent_id, conn.read_only = path, agent_id, read_only
    try:
        conn.follow(key)
    except BaseException:
        conn.close()
        raise
    return conn


def write_encrypted(path: Path, source: sqlite3.Connection, key: DataKey) -> None:
    """Write an index's content to a new encrypted file, not synced. Raises OSError, sqlite3.Error."""
    file_id = secrets.token_bytes(16)
    with closing(sqlite3.connect(":memory:")) as memory:
        source.backup(memory)
        records = _snapshot(key.cipher("index"), file_id, image_of(memory))
    with opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) as fd:
        write_all(fd, b"".join((_MAGIC, file_id, *records)), 0)


def image_of(conn: sqlite3.Connection) -> bytes:
    """A database as the bytes of its file; never one in WAL mode, which could not be read back from memory."""
    image = bytearray(conn.serialize())
    image[18:20] = b"\x01\x01"
    return bytes(image)


def file_id_of(data: bytes) -> bytes:
    """What names a file: each snapshot has another."""
    return data[len(_MAGIC) : FIRST_RECORD]


def opened_record(
    cipher: Cipher, file_id: bytes, number: int, chain: bytes, data: bytes, at: int
) -> bytes | None:
    """What the record at a place says, if it is the one of that number, after the one whose tag ``chain`` is."""
    size = size_at(data, at)
    if size is None:
        return None
    record = data[at + 4 : at + 4 + size]
    return cipher.decrypt(record[:NONCE_BYTES], record[NONCE_BYTES:], bound_of(file_id, number, chain))


def bound_of(file_id: bytes, number: int, chain: bytes) -> bytes:
    """What a record is authenticated with."""
    return b"record" + file_id + number.to_bytes(8, "little") + chain


def _snapshot(cipher: Cipher, file_id: bytes, image: bytes) -> list[bytes]:
    """The records of a database."""
    records: list[bytes] = []
    chain = b""
    for start in range(0, len(image), SNAPSHOT_PART):
        part = image[start : start + SNAPSHOT_PART]
        kind = b"p" if start + SNAPSHOT_PART < len(image) else b"s"
        records.append(_record(cipher, kind + part, bound_of(file_id, len(records), chain)))
        chain = records[-1][-TAG_BYTES:]
    return records


def _record(cipher: Cipher, plain: bytes, bound: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    body = cipher.encrypt(nonce, plain, bound)
    return struct.pack("<I", len(nonce) + len(body)) + nonce + body


def _record_at(fd: int, at: int, end: int) -> bytes | None:
    """The record at a place of a file, its length first; None for one that is not there in full."""
    head = read_all(fd, 4, at)
    size = int.from_bytes(head, "little")
    if len(head) < 4 or not NONCE_BYTES + TAG_BYTES <= size <= end - at - 4:
        return None
    record = head + read_all(fd, size, at + 4)
    return record if len(record) == size + 4 else None


def size_at(data: bytes, at: int) -> int | None:
    """How long a record is; None for one that is not there in full."""
    if at + 4 > len(data):
        return None
    size = int.from_bytes(data[at : at + 4], "little")
    return size if NONCE_BYTES + TAG_BYTES <= size <= len(data) - at - 4 else None


def _failed(error: OSError) -> sqlite3.OperationalError:
    return sqlite3.OperationalError(f"disk I/O error ({error.strerror})")


def _json(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"b": base64.b64encode(value).decode()}
    return value


def value_of(value: Any) -> Any:
    """A value of a statement, as it was given."""
    return base64.b64decode(value["b"]) if isinstance(value, dict) else value


Identify = Callable[[sqlite3.Connection], None]
"""Gives the index of a copied agent its own name."""

"""A connection to an agent's index: how it is opened, and the settings it stands on, which are read back.

**Transactions.** Python's sqlite3 begins none by itself (``isolation_level=None``): each is begun by
:class:`agentmem.store.index.Index`, and IMMEDIATE. A deferred one that turns into a writer later cannot wait for
another: it fails at once, whatever ``busy_timeout`` says.

**The WAL-reset race.** SQLite 3.7.0 to 3.51.2 can corrupt a database in WAL mode when two connections write or
checkpoint at the same moment. Here that cannot happen, by construction: an agent has one writer, who holds the
lock; everybody else connects with ``mode=ro``, which can neither write nor checkpoint, and with
``wal_autocheckpoint=0`` besides. An index is never shared between agents.

Knows SQLite; no tables.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from agentmem.errors import DamagedError, StoreError
from agentmem.store.seals import Seals

_SETTINGS: Mapping[str, int] = {
    "busy_timeout": 5000,
    "synchronous": 2,  # FULL: what was acknowledged survives a power cut
    "foreign_keys": 1,
    "trusted_schema": 0,
    "cell_size_check": 1,
    "mmap_size": 0,
    "secure_delete": 1,
    "temp_store": 2,  # views and triggers of this connection alone: in memory
    "recursive_triggers": 1,  # or rows that are replaced would not be counted as deleted
}
_AS_MADE: Mapping[str, int | str] = {"auto_vacuum": 0, "encoding": "UTF-8"}
"""What the header says of a file we made; SQLite would write another kind of file if it said otherwise."""


class IndexConnection(sqlite3.Connection):
    """A connection that knows the seals of the tables it reads; None until they are looked up."""

    seals: Seals | None = None

    def file_flaws(self) -> Iterator[tuple[str, str]]:
        """(where, what) is wrong with the file beside what SQLite itself checks."""
        yield from ()


def connect(path: Path, *, read_only: bool) -> IndexConnection:
    """A connection to an index that is there; nothing is read yet."""
    mode = "ro" if read_only else "rw"
    if read_only and not os.access(path.parent, os.W_OK) and not path.with_name("agent.db-wal").exists():
        mode = "ro&immutable=1"  # a copy on read-only media: nobody writes, and no -shm file can be made
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,  # one caller at a time, but not always the same thread
        factory=IndexConnection,
    )


def seals_of(conn: sqlite3.Connection) -> Seals:
    """The seals of a connection that ``open_database`` or ``create_database`` made."""
    assert isinstance(conn, IndexConnection), "not a connection of ours"
    assert conn.seals is not None, "its tables were not looked up yet"
    return conn.seals


def file_flaws_of(conn: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """See :meth:`IndexConnection.file_flaws`."""
    assert isinstance(conn, IndexConnection), "not a connection of ours"
    yield from conn.file_flaws()


def apply_settings(conn: sqlite3.Connection, agent_id: str, *, read_only: bool) -> None:
    """Settle how SQLite works, and read it back. Raises StoreError, DamagedError."""
    wanted = {**_SETTINGS, "wal_autocheckpoint": 0 if read_only else 1000}
    for name, value in wanted.items():
        conn.execute(f"PRAGMA {name} = {value}").fetchall()
        taken = _setting(conn, name)
        if taken != value:
            raise StoreError(
                f"agent {agent_id!r}: SQLite {sqlite3.sqlite_version} did not take {name} = {value} (it says "
                f"{taken!r}), which keeping a memory safe depends on. Use a Python with another SQLite."
            )
    for name, made in _AS_MADE.items():
        found = _setting(conn, name)
        if found != made:
            raise DamagedError(agent_id, "agent.db", "the header", f"{name} is {found!r}, not {made!r}")


def require_wal(conn: sqlite3.Connection, agent_id: str) -> None:
    """For a writer: a file in another journal mode is not as it was made. Raises DamagedError."""
    found = _setting(conn, "journal_mode")
    if found != "wal":
        raise DamagedError(agent_id, "agent.db", "the header", f"journal_mode is {found!r}, not 'wal'")


def _setting(conn: sqlite3.Connection, name: str) -> int | str | None:
    row = conn.execute(f"PRAGMA {name}").fetchone()
    return None if row is None else row[0]

"""Where a salvage reads a damaged index, and how the new one gets into its place. Knows files; not what a row means."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from agentmem.store.files import opened, sync_file, sync_folder
from agentmem.store.mending import OLD_LOG
from agentmem.store.salvage_rows import SavedTable, mend_header, saved_tables
from agentmem.store.schema import create_database

Columns = Mapping[str, Sequence[str]]
"""Our tables and their columns, seals left out."""


class IndexPlace(Protocol):
    """The index of one agent that is salvaged. Its lock is held, and it is closed."""

    @property
    def losses(self) -> Sequence[str]:
        """What of the file could not be read, beside rows."""
        ...

    def saved(self, columns: Columns) -> dict[str, SavedTable]:
        """What is left of each table; nothing is done to the old files. Raises OSError, DamagedError."""
        ...

    def filling(self) -> AbstractContextManager[sqlite3.Connection]:
        """An empty index out of sight, to be filled; whole on the medium after the block. Raises OSError, sqlite3.Error."""
        ...

    def swap(self) -> None:
        """Put what was filled in the place of the old index, in one step. Raises OSError."""
        ...


class PlainPlace:
    """An index as it is; ``workshop`` is an empty folder for copies."""

    def __init__(self, folder: Path, workshop: Path) -> None:
        self._folder = folder
        self._workshop = workshop
        self._new = workshop / "new.db"

    @property
    def losses(self) -> Sequence[str]:
        """See :class:`IndexPlace`."""
        return ()

    def saved(self, columns: Columns) -> dict[str, SavedTable]:
        """See :class:`IndexPlace`."""
        copy, sound = self._workshop / "agent.db", self._workshop / "sound.db"
        shutil.copyfile(self._folder / "agent.db", copy)
        for log in (self._folder / "agent.db-wal", self._folder / OLD_LOG):
            if log.exists():
                shutil.copyfile(log, self._workshop / "agent.db-wal")
                break
        create_database(sound).close()
        mend_header(copy, sound)
        saved = _saved(copy, columns)
        if all(table.whole for table in saved.values()):
            return saved
        again = _saved(copy, columns)  # a disk may fail once, and the old index will be gone
        return {name: table.joined(again[name]) for name, table in saved.items()}

    @contextmanager
    def filling(self) -> Iterator[sqlite3.Connection]:
        """See :class:`IndexPlace`."""
        with closing(create_database(self._new)) as db:
            yield db.conn
            # it alone is moved, and closing it says nothing of a disk that refused
            blocked, *_ = db.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if blocked:
                raise sqlite3.OperationalError("the new index could not be written whole")

    def swap(self) -> None:
        """See :class:`IndexPlace`. Its write-ahead log must not be the old one's: that goes out of the way first."""
        old, log = self._folder / "agent.db", self._folder / "agent.db-wal"
        with opened(self._new, os.O_RDWR) as fd:
            sync_file(fd)
        if log.exists():
            os.replace(log, self._folder / OLD_LOG)
            sync_folder(self._folder)
        sync_folder(self._folder / "kv")
        os.replace(self._new, old)
        sync_folder(self._folder)
        with suppress(FileNotFoundError):
            (self._folder / "agent.db-shm").unlink()
        with suppress(FileNotFoundError):
            (self._folder / OLD_LOG).unlink()
        sync_folder(self._folder)


def _saved(copy: Path, columns: Columns) -> dict[str, SavedTable]:
    """What one connection can read: it keeps what it made of the tables' definitions."""
    with closing(sqlite3.connect(copy, isolation_level=None)) as conn:
        conn.execute("PRAGMA writable_schema = ON")  # a definition that makes no sense hides no other table
        return saved_tables(conn, columns)

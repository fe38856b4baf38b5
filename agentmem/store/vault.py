"""How an agent's files are opened: as they are, or decrypted on the way in and encrypted on the way out.

Two objects with the same steps, so that nothing above them asks whether an agent is encrypted. Knows files and
the index's tables; nothing of open stores.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Protocol

from sqlite_utils import Database

from agentmem.errors import DamagedError
from agentmem.memory.source import KVLayout, RuleStates
from agentmem.store.digest_cipher import encrypted_digest_path
from agentmem.store.digest_log import DigestState, DigestSums, DiskDigestLog, digest_path, digest_spec
from agentmem.store.encrypted_digests import EncryptedDigestLog
from agentmem.store.encrypted_index import INDEX_FILE, Identify, connect_encrypted, write_encrypted
from agentmem.store.encrypted_salvage import EncryptedPlace
from agentmem.store.encrypted_segments import EncryptedSegmentSet
from agentmem.store.failures import of_sqlite
from agentmem.store.files import FILE_MODE, opened, read_all, write_all
from agentmem.store.index import Index
from agentmem.store.keys import KEY_FILE, DataKey, MemoryKey, is_encrypted, unlock, write_key
from agentmem.store.pages_on_demand import SegmentsOnDemand
from agentmem.store.salvage_places import IndexPlace, PlainPlace
from agentmem.store.schema import bring_up_to_date, open_database
from agentmem.store.segment import LoadLive, LoadPages, SegmentSet, nothing_live
from agentmem.store.tensor_file import TensorFile, copy_used


class Vault(Protocol):
    """What the files of one agent are opened with."""

    def index(self, folder: Path, agent_id: str, *, read_only: bool) -> Database:
        """The index; a writer brings older tables up to date. Raises DamagedError, FormatVersionError."""
        ...

    def segments(
        self,
        folder: Path,
        layout: KVLayout,
        capacity: int,
        agent_id: str,
        load_pages: LoadPages,
        load_live: LoadLive,
    ) -> SegmentSet:
        """The segments."""
        ...

    def digests(
        self,
        folder: Path,
        layout: KVLayout,
        capacity: int,
        agent_id: str,
        stored: DigestState,
        states: RuleStates | None,
    ) -> DiskDigestLog:
        """The digests."""
        ...

    def copy_index(self, source: Path, folder: Path, source_id: str, uuid: str, identify: Identify) -> None:
        """Make ``folder`` hold a copy of an agent's index, named by ``identify``. Raises DamagedError."""
        ...

    def copy_digests(
        self, source: Path, folder: Path, layout: KVLayout, capacity: int, sums: DigestSums
    ) -> None:
        """Copy a digest file; one that is damaged is left out. Raises OSError."""
        ...

    def salvage_place(self, folder: Path, agent_id: str, workshop: Path) -> IndexPlace:
        """Where a damaged index is read, and a new one put."""
        ...


class PlainVault:
    """Files as they are."""

    def index(self, folder: Path, agent_id: str, *, read_only: bool) -> Database:
        """See :class:`Vault`."""
        return open_database(folder / "agent.db", agent_id, read_only=read_only)

    def segments(
        self,
        folder: Path,
        layout: KVLayout,
        capacity: int,
        agent_id: str,
        load_pages: LoadPages,
        load_live: LoadLive,
    ) -> SegmentSet:
        """See :class:`Vault`."""
        # what a reader looks at must be what it was when it first looked: the writer may forget meanwhile
        kind = SegmentSet if load_live is nothing_live else SegmentsOnDemand
        return kind(folder, layout, capacity, agent_id, load_pages, load_live)

    def digests(
        self,
        folder: Path,
        layout: KVLayout,
        capacity: int,
        agent_id: str,
        stored: DigestState,
        states: RuleStates | None,
    ) -> DiskDigestLog:
        """See :class:`Vault`."""
        return DiskDigestLog(folder, layout, capacity, agent_id, stored, states)

    def copy_index(self, source: Path, folder: Path, source_id: str, uuid: str, identify: Identify) -> None:
        """See :class:`Vault`."""
        target = folder / "agent.db"
        os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE))
        db = open_database(source / "agent.db", source_id, read_only=True)
        with closing(db), closing(sqlite3.connect(target)) as copy:
            try:
                db.conn.backup(copy)  # plain file copies of a live database are not consistent
            except sqlite3.DatabaseError as error:
                raise of_sqlite(source_id, error) from error
        with closing(open_database(target, source_id, read_only=False)) as db:
            db.execute("PRAGMA synchronous = OFF")  # the whole folder is synced at the end
            identify(db.conn)

    def copy_digests(
        self, source: Path, folder: Path, layout: KVLayout, capacity: int, sums: DigestSums
    ) -> None:
        """See :class:`Vault`."""
        with suppress(DamagedError):  # they are computed again
            file = TensorFile(digest_path(source, sums.file), digest_spec(layout, capacity), "")
            copy_used(file, digest_path(folder, sums.file), sums.filled, [(0, sums.filled)])
            file.close()

    def salvage_place(self, folder: Path, agent_id: str, workshop: Path) -> IndexPlace:
        """See :class:`Vault`."""
        return PlainPlace(folder, workshop)


class EncryptedVault:
    """Files that the agent's own key encrypts; ``key`` is the user's."""

    def __init__(self, data_key: DataKey, key: MemoryKey) -> None:
        self._data_key = data_key
        self._key = key

    def index(self, folder: Path, agent_id: str, *, read_only: bool) -> Database:
        """See :class:`Vault`."""
        conn = connect_encrypted(folder / INDEX_FILE, agent_id, self._data_key, read_only=read_only)
        db = Database(conn, recursive_triggers=True, execute_plugins=False)
        try:
            if not read_only:
                with conn.muted():
                    changed = bring_up_to_date(db, agent_id)
                if changed:
                    conn.rewrite()
        except BaseException:
            db.close()
            raise
        return db

    def segments(
        self,
        folder: Path,
        layout: KVLayout,
        capacity: int,
        agent_id: str,
        load_pages: LoadPages,
        load_live: LoadLive,
    ) -> SegmentSet:
        """See :class:`Vault`."""
        return EncryptedSegmentSet(folder, layout, capacity, agent_id, load_pages, load_live, self._data_key)

    def digests(
        self,
        folder: Path,
        layout: KVLayout,
        capacity: int,
        agent_id: str,
        stored: DigestState,
        states: RuleStates | None,
    ) -> DiskDigestLog:
        """See :class:`Vault`."""
        return EncryptedDigestLog(folder, layout, capacity, agent_id, stored, states, self._data_key)

    def copy_index(self, source: Path, folder: Path, source_id: str, uuid: str, identify: Identify) -> None:
        """See :class:`Vault`. The data key is wrapped anew, since shared files are under it."""
        PlainVault().copy_index(source, folder, source_id, uuid, identify)
        conn = connect_encrypted(source / INDEX_FILE, source_id, self._data_key, read_only=True)
        with closing(conn):
            with conn.muted():
                identify(conn)
            write_encrypted(folder / INDEX_FILE, conn, self._data_key)
        write_key(folder, self._data_key.wrapped(self._key, uuid))

    def copy_digests(
        self, source: Path, folder: Path, layout: KVLayout, capacity: int, sums: DigestSums
    ) -> None:
        """See :class:`Vault`."""
        target = encrypted_digest_path(folder, sums)
        with (
            suppress(FileNotFoundError),
            opened(encrypted_digest_path(source, sums), os.O_RDONLY) as old,
            opened(target, os.O_RDWR | os.O_CREAT | os.O_EXCL) as new,
        ):
            write_all(new, read_all(old, os.fstat(old).st_size, 0), 0)

    def salvage_place(self, folder: Path, agent_id: str, workshop: Path) -> IndexPlace:
        """See :class:`Vault`."""
        return EncryptedPlace(folder, agent_id, workshop, self._data_key)

    def change(self, folder: Path, uuid: str, key: MemoryKey) -> None:
        """Lock the agent with another key of the user's. Raises OSError; then it is as it was."""
        write_key(folder, self._data_key.wrapped(key, uuid))
        self._key = key


def vault_of(folder: Path, agent_id: str, key: MemoryKey | None) -> Vault:
    """What an agent's files are opened with. Raises KeyNeededError, WrongKeyError, DamagedError."""
    uuid = ""
    if is_encrypted(folder):
        with closing(open_database(folder / "agent.db", agent_id, read_only=True)) as db:
            uuid = Index(db, agent_id, read_only=True).identity().uuid
    data_key = unlock(folder, agent_id, uuid, key)
    if data_key is None or key is None:
        return PlainVault()
    return EncryptedVault(data_key, key)


def encrypt_new(folder: Path, agent_id: str, uuid: str, key: MemoryKey) -> None:
    """Make a new, empty agent an encrypted one. Its name and model stay readable, for lists. Raises OSError."""
    data_key = DataKey.new(uuid)
    with closing(open_database(folder / "agent.db", agent_id, read_only=True)) as db:
        write_encrypted(folder / INDEX_FILE, db.conn, data_key)
    write_key(folder, data_key.wrapped(key, uuid))


def shred(folder: Path) -> None:
    """Overwrite and remove an agent's key file, without which nothing of it can be read. Raises OSError."""
    if (folder / KEY_FILE).exists():
        write_key(folder, b"shredded")
        (folder / KEY_FILE).unlink()

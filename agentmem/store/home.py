"""All agents of one folder: made, opened, listed, forked, removed.

Knows where agents lie and who may open them; what is inside is :class:`DiskStore`'s affair.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from sqlite_utils import Database

from agentmem.errors import (
    AgentExistsError,
    AgentNotFoundError,
    ConfigError,
    DamagedError,
    KeyNeededError,
    StoreError,
    WrongKeyError,
)
from agentmem.memory.source import KVLayout
from agentmem.store.base import AgentIdentity, AgentInfo, Json
from agentmem.store.birth import new_folder, remove, write_fork, write_new
from agentmem.store.disk import DiskStore
from agentmem.store.failures import remedy_for, says_nothing, typed
from agentmem.store.files import FOLDER_MODE, folder_bytes, make_folder
from agentmem.store.index import Index
from agentmem.store.keys import MemoryKey, is_encrypted
from agentmem.store.lock import WriterLock
from agentmem.store.mended import SalvageReport
from agentmem.store.names import checked_id, folder_name
from agentmem.store.pages import PAGE_SLOTS
from agentmem.store.placing import clear, place, replace
from agentmem.store.salvaging import salvaged
from agentmem.store.schema import open_database
from agentmem.store.segment import segment_spec
from agentmem.store.vault import EncryptedVault, encrypt_new, vault_of


def now() -> str:
    """The current time in ISO 8601, UTC; for people, never for logic."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class DiskHome:
    """Agents below ``home/agents``. See :class:`agentmem.store.base.Home`.

    Args:
        home: made when the first agent is.
        segment_tokens: token slots in a segment file of agents made here; a multiple of 32.
        digest_blocks: blocks in a digest file of agents made here.
        key: agents made here are encrypted with it, and such agents are opened with it; None: plain ones.
    """

    def __init__(
        self,
        home: Path,
        *,
        segment_tokens: int = 8192,
        digest_blocks: int = 1024,
        key: MemoryKey | None = None,
    ) -> None:
        if segment_tokens <= 0 or segment_tokens % PAGE_SLOTS:
            raise ConfigError(f"segment_tokens={segment_tokens} is not a positive multiple of {PAGE_SLOTS}")
        if digest_blocks <= 0:
            raise ConfigError(f"digest_blocks={digest_blocks} is not positive")
        self.home = Path(home).resolve()  # the home itself may be a link; what is below it may not
        self._segment_tokens = segment_tokens
        self._digest_blocks = digest_blocks
        self._key = key

    @property
    def key(self) -> MemoryKey | None:
        """What agents here are encrypted with."""
        return self._key

    def with_key(self, key: MemoryKey) -> DiskHome:
        """The same home, for agents that are encrypted with a key."""
        return DiskHome(
            self.home, segment_tokens=self._segment_tokens, digest_blocks=self._digest_blocks, key=key
        )

    def change_key(self, agent_id: str, key: MemoryKey) -> None:
        """Lock an encrypted agent with another key from now on. Raises KeyNeededError, WrongKeyError, StoreError."""
        name = checked_id(agent_id)
        folder = self._require(name)
        lock = WriterLock(folder / "lock", name)
        try:
            vault = vault_of(folder, name, self._key)
            if not isinstance(vault, EncryptedVault):
                raise KeyNeededError(f"agent {name!r} is not encrypted: there is no key to change")
            with typed(name, "changing the key"):
                vault.change(folder, self.peek(name).uuid, key)
        finally:
            lock.release()

    def exists(self, agent_id: str) -> bool:
        """Whether there is such an agent."""
        name = checked_id(agent_id)
        with typed(name, "looking for the agent"):
            return (self._folder(name) / "agent.db").exists()

    def create(
        self,
        agent_id: str,
        *,
        fingerprint: Mapping[str, str],
        layout: KVLayout,
        model: str,
        facts: Mapping[str, Json],
        wait: float = 0.0,
    ) -> DiskStore:
        """Make a new, empty agent and open it. Raises AgentExistsError, InputError, ConfigError."""
        name = checked_id(agent_id)
        self._require_absent(name)
        segment_spec(layout, self._segment_tokens)  # refuses a dtype that cannot be stored
        identity = AgentIdentity(name, uuid.uuid4().hex, now(), fingerprint, layout, model, facts)
        final = self._folder(name)
        with new_folder(final, name) as (folder, lock):
            write_new(folder, identity, self._segment_tokens, self._digest_blocks)
            if self._key is not None:
                encrypt_new(folder, name, identity.uuid, self._key)
        return self._opened(final, name, lock)

    def open(self, agent_id: str, *, wait: float = 0.0, read_only: bool = False) -> DiskStore:
        """Open an agent. Raises AgentNotFoundError, AgentBusyError, DamagedError, FormatVersionError."""
        name = checked_id(agent_id)
        folder = self._require(name)
        lock = None if read_only else WriterLock(folder / "lock", name, wait)
        return self._opened(folder, name, lock)

    def peek(self, agent_id: str) -> AgentIdentity:
        """Who that is, without the lock. Raises AgentNotFoundError, DamagedError."""
        name = checked_id(agent_id)
        db = open_database(self._require(name) / "agent.db", name, read_only=True)
        try:
            return Index(db, name, read_only=True).identity()
        finally:
            db.close()

    def fork(self, agent_id: str, new_id: str) -> None:
        """A new agent with the same past, sharing sealed files; its turns keep their state ids.

        The source may be open in this process (its open turn is not copied); if another process holds
        it, AgentBusyError. Raises AgentNotFoundError, AgentExistsError, DamagedError.
        """
        name, new_name = checked_id(agent_id), checked_id(new_id)
        source = self._require(name)
        self._require_absent(new_name)
        lock = None
        if not WriterLock.held_here(source / "lock"):
            lock = WriterLock(source / "lock", name)
        try:
            with new_folder(self._folder(new_name), new_name) as (folder, new_lock):
                vault = vault_of(source, name, self._key)
                write_fork(source, folder, name, new_name, uuid.uuid4().hex, now(), vault)
            new_lock.release()
        finally:
            if lock is not None:
                lock.release()

    def salvage(self, agent_id: str, *, dry_run: bool = False) -> SalvageReport:
        """Make an agent with a damaged index usable again, with what is left of it; see the protocol."""
        name = checked_id(agent_id)
        folder = self._folder(name)
        if self._key is None or not is_encrypted(folder):  # else the open part may be gone
            folder = self._require(name)
        _refuse_links(folder, name)
        return salvaged(
            lambda: self.open(name),
            folder,
            name,
            self._workshop(name),
            key=self._key,
            dry_run=dry_run,
        )

    def folder_of(self, agent_id: str) -> Path:
        """Where an agent's files lie. Raises AgentNotFoundError."""
        return self._require(checked_id(agent_id))

    def workshop(self, agent_id: str) -> DiskHome:
        """A home out of sight, where new agents are made from this one; gone with it."""
        with typed(agent_id, "making a workshop"):
            self.home.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            make_folder(self.home / "workshop")
        return DiskHome(
            self._workshop(checked_id(agent_id)),
            segment_tokens=self._segment_tokens,
            digest_blocks=self._digest_blocks,
            key=self._key,
        )

    def put_in_place(self, agent_id: str, new_id: str, *, over: tuple[str, str | None] | None = None) -> None:
        """Move agent ``new_id`` from the workshop of ``agent_id`` here, in one step; see the protocol."""
        name = checked_id(new_id)
        draft = self.workshop(agent_id).folder_of(name)
        with typed(name, "putting the agent in its place"):
            if over is not None:
                final = self._require(name)
                replace(draft, final, name, over, vault_of(final, name, self._key))
            else:
                self._require_absent(name)
                place(draft, self._folder(name), name)
        with suppress(StoreError):  # it is in its place; what is left over goes with the next one
            self.clear_workshop(agent_id)

    def clear_workshop(self, agent_id: str) -> None:
        """Remove unfinished agents that were being made from this one."""
        with typed(agent_id, "clearing a workshop"):
            clear(self._workshop(checked_id(agent_id)))

    def list(self) -> list[AgentInfo]:
        """Every agent, most recently used first; one whose index is damaged comes last, by its folder's name.

        Raises StoreError: the system would not let them be read, such as for too many open files.
        """
        agents = self.home / "agents"
        try:
            folders = sorted(agents.iterdir()) if agents.is_dir() else []
        except OSError as error:
            raise StoreError(f"{agents} cannot be listed ({error.strerror}). {remedy_for(error)}.") from error
        rows = [_info(folder, self._key) for folder in folders if not folder.name.startswith(".")]
        return sorted(rows, key=lambda info: _seconds(info.last_used or info.created_at), reverse=True)

    def delete(self, agent_id: str) -> None:
        """Remove an agent and its files. Raises AgentNotFoundError, AgentBusyError."""
        name = checked_id(agent_id)
        folder = self._require(name)
        remove(folder, name, WriterLock(folder / "lock", name))
        self.clear_workshop(name)

    def _folder(self, name: str) -> Path:
        return self.home / "agents" / folder_name(name)

    def _workshop(self, name: str) -> Path:
        return self.home / "workshop" / folder_name(name)

    def _require(self, name: str) -> Path:
        folder = self._folder(name)
        if not (folder / "agent.db").exists():
            raise AgentNotFoundError(
                f"there is no agent {name!r} in {self.home}; `agentmem list` shows those there are"
            )
        _refuse_links(folder, name)
        return folder

    def _require_absent(self, name: str) -> None:
        if (self._folder(name) / "agent.db").exists():
            raise AgentExistsError(f"there is an agent {name!r} already; open it, or choose another name")

    def _opened(self, folder: Path, name: str, lock: WriterLock | None) -> DiskStore:
        try:
            with typed(name, "opening the agent"):
                store = DiskStore(folder, name, lock, self._key)
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        if store.identity.agent_id != name:
            found = store.identity.agent_id
            store.close()
            raise DamagedError(name, "agent.db", "table identity", f"the folder holds agent {found!r}")
        return store


def _info(folder: Path, key: MemoryKey | None) -> AgentInfo:
    size = folder_bytes(folder)
    try:
        _refuse_links(folder, folder.name)
        db = _readable(folder, key)
        try:
            index = Index(db, folder.name, read_only=True)
            identity = index.identity()
            rows = index.execute(
                "SELECT t.depth, t.stop, t.created_at FROM sealed_state s JOIN sealed_turns t ON t.id = s.head"
            )
        finally:
            db.close()
    except DamagedError:
        return AgentInfo(f"(damaged: {folder.name})", 0, 0, size, "", None, "")
    except StoreError as error:
        if says_nothing(error):
            raise
        return AgentInfo(f"(unreadable: {folder.name})", 0, 0, size, "", None, "")
    turns, tokens, last_used = rows[0] if rows else (0, 0, None)
    return AgentInfo(identity.agent_id, turns, tokens, size, identity.created_at, last_used, identity.model)


def _refuse_links(folder: Path, agent_id: str) -> None:
    """An agent's files never lie elsewhere. Raises DamagedError; single files are opened with O_NOFOLLOW besides."""
    for path in (folder, *(folder / name for name in ("agent.db", "kv", "digests"))):
        if path.is_symlink():
            raise DamagedError(
                agent_id, path.name, "the whole file", "it is a symbolic link, which no file of an agent is"
            )


def _readable(folder: Path, key: MemoryKey | None) -> Database:
    """As much of an index as can be read: of an encrypted agent without its key, name and model."""
    try:
        return vault_of(folder, folder.name, key).index(folder, folder.name, read_only=True)
    except (KeyNeededError, WrongKeyError):
        return open_database(folder / "agent.db", folder.name, read_only=True)


def _seconds(moment: str) -> float:
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return 0.0

"""How agents come into being and go: built in a hidden sibling folder, synced, then renamed into place.

So an agent's folder is always whole. Knows files and the index's tables; nothing of open stores.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agentmem.errors import AgentBusyError, AgentExistsError, AgentNotFoundError
from agentmem.store.base import AgentIdentity
from agentmem.store.failures import typed
from agentmem.store.files import make_folder, opened, sync_file, sync_folder
from agentmem.store.index import Index, encode_json
from agentmem.store.layout_text import layout_columns
from agentmem.store.lock import WriterLock
from agentmem.store.schema import create_database
from agentmem.store.slot_rows import SlotRows
from agentmem.store.vault import Vault, shred

_LEFTOVER_SECONDS = 3600.0


@contextmanager
def new_folder(final: Path, agent_id: str) -> Iterator[tuple[Path, WriterLock]]:
    """A locked, hidden folder that becomes ``final`` when the block ends, and vanishes if it fails.

    The lock stays held after it: whoever made the agent has it.

    Raises:
        AgentExistsError: there is such an agent by now.
        StoreError: the disk failed; there is no new agent.
    """
    with typed(agent_id, "making the agent"):
        yield from _new_folder(final, agent_id)


def _new_folder(final: Path, agent_id: str) -> Iterator[tuple[Path, WriterLock]]:
    final.parent.parent.parent.mkdir(parents=True, exist_ok=True)
    make_folder(final.parent.parent)  # the home itself: only its owner may look in
    make_folder(final.parent)
    sync_folder(final.parent.parent)  # else the power may take away the folder that all agents are in
    with suppress(PermissionError):
        sync_folder(final.parent.parent.parent)
    _sweep(final.parent)
    folder = final.parent / f".new-{secrets.token_hex(8)}"
    make_folder(folder)
    lock = WriterLock(folder / "lock", agent_id)
    try:
        make_folder(folder / "kv")
        make_folder(folder / "digests")
        yield folder, lock
        _sync_tree(folder)
        try:
            folder.rename(final)
        except OSError as error:
            if not final.exists():
                raise
            raise AgentExistsError(f"there is an agent {agent_id!r} already; choose another name") from error
        lock.moved(final / "lock")
        try:
            sync_folder(final.parent)
        except OSError:  # not acknowledged, so it shall not be there
            final.rename(folder)
            raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()
        raise


def write_new(folder: Path, identity: AgentIdentity, segment_tokens: int, digest_blocks: int) -> None:
    """Make the index of a new, empty agent."""
    db = create_database(folder / "agent.db")
    try:
        db.execute(
            "INSERT INTO identity (id, agent_id, uuid, created_at, fingerprint, layers, dtype, model, facts, "
            "segment_tokens, digest_blocks) VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                identity.agent_id,
                identity.uuid,
                identity.created_at,
                encode_json(dict(identity.fingerprint)),
                *layout_columns(identity.layout),
                identity.model,
                encode_json(dict(identity.facts)),
                segment_tokens,
                digest_blocks,
            ),
        )
    finally:
        db.close()


def write_fork(
    source: Path, folder: Path, source_id: str, agent_id: str, uuid: str, created_at: str, vault: Vault
) -> None:
    """Make ``folder`` a copy of an agent under another name: sealed segments linked, the open one copied.

    Only what is committed is copied. Raises DamagedError when the open segment cannot be read.
    """

    def identify(conn: sqlite3.Connection) -> None:
        conn.execute(
            "UPDATE identity SET agent_id = ?, uuid = ?, created_at = ?", (agent_id, uuid, created_at)
        )

    vault.copy_index(source, folder, source_id, uuid, identify)
    db = vault.index(folder, agent_id, read_only=False)
    try:
        db.execute("PRAGMA synchronous = OFF")  # the whole folder is synced at the end
        index = Index(db, agent_id, read_only=False)
        slots, layout = SlotRows(index), index.identity().layout
        tokens, blocks = index.file_sizes()
        segments = vault.segments(source / "kv", layout, tokens, source_id, slots.pages, slots.live)
        open_segment = slots.tail().segment
        for number in slots.segments():
            target = folder / "kv" / segments.path(number).name
            if not slots.used(number):  # only what was set aside lies there
                _linked(segments.path(number), target)
            elif number == open_segment or not _linked(segments.path(number), target):
                segments.copy(number, target, slots.used(number))
        segments.close()
        for sums in slots.digests().files.values():
            vault.copy_digests(source / "digests", folder / "digests", layout.decoded, blocks, sums)
    finally:
        db.close()


def remove(folder: Path, agent_id: str, lock: WriterLock) -> None:
    """Remove an agent's folder: out of sight first, so that it is never there in part. Raises StoreError."""
    gone = folder.with_name(f".gone-{secrets.token_hex(8)}")
    try:
        with typed(agent_id, "removing the agent"):
            folder.rename(gone)
            sync_folder(folder.parent)
            shred(gone)
            shutil.rmtree(gone, ignore_errors=True)
    finally:
        lock.release()


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except FileNotFoundError:
        return False  # copying will say what is wrong
    except OSError:
        return False  # the file system has no hard links, or no more of them
    return True


def _sync_tree(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            with opened(Path(parent, name), os.O_RDWR) as fd:
                sync_file(fd)
        sync_folder(Path(parent))


def _sweep(agents: Path) -> None:
    """Remove what killed processes left behind while they made or removed an agent."""
    for path in agents.glob(".*-*"):
        with suppress(AgentBusyError, AgentNotFoundError, FileNotFoundError):
            if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
                lock = WriterLock(path / "lock", path.name)
                shutil.rmtree(path, ignore_errors=True)
                lock.release()

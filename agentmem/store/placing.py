"""Putting a finished agent in its place in one step: under a new name, or instead of another one.

It was made in a workshop, a home of its own below the home it is for, so that it is never seen unfinished.
Knows folders, locks and which state an index stands at; nothing of what is in them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from agentmem.errors import AgentExistsError, StaleWriterError, StoreError
from agentmem.store.birth import remove
from agentmem.store.files import exchange, make_folder, sync_folder
from agentmem.store.index import Index
from agentmem.store.lock import WriterLock
from agentmem.store.vault import Vault


def place(draft: Path, final: Path, agent_id: str) -> None:
    """Move a finished agent to a place where there is none. Raises AgentExistsError, AgentBusyError."""
    lock = WriterLock(draft / "lock", agent_id)
    try:
        make_folder(final.parent)
        sync_folder(final.parent.parent)
        try:
            draft.rename(final)
        except OSError as error:
            if not final.exists():
                raise
            raise AgentExistsError(f"there is an agent {agent_id!r} already; choose another name") from error
        lock.moved(final / "lock")
        try:
            sync_folder(final.parent)
            sync_folder(draft.parent)
        except OSError:  # not acknowledged, so it shall not be there
            final.rename(draft)
            raise
    finally:
        lock.release()


def replace(draft: Path, final: Path, agent_id: str, over: tuple[str, str | None], vault: Vault) -> None:
    """Exchange a finished agent with the one of its name, then remove that one.

    Args:
        over: the uuid and the head state of the one to be replaced; None for the empty state.
        vault: what the old one's files are opened with.

    Raises:
        AgentBusyError: one of them is open for writing.
        StaleWriterError: the old one has changed meanwhile; nothing was replaced.
        StoreError: this file system cannot exchange two folders.
    """
    old_lock = WriterLock(final / "lock", agent_id)
    try:
        if _standing(final, agent_id, vault) != over:
            raise StaleWriterError(
                f"agent {agent_id!r} was changed meanwhile, so it was not replaced; do it again"
            )
        lock = WriterLock(draft / "lock", agent_id)
        try:
            exchange(draft, final)
        except OSError as error:
            raise StoreError(
                f"agent {agent_id!r} cannot be replaced: this file system does not exchange two folders in one step "
                f"({error.strerror}). Give the new agent another name."
            ) from error
        finally:
            lock.release()
        sync_folder(final.parent)
        sync_folder(draft.parent)
        old_lock.moved(draft / "lock")
        remove(draft, agent_id, old_lock)
    finally:
        old_lock.release()


def clear(workshop: Path) -> None:
    """Remove a workshop with all drafts in it."""
    if workshop.exists():
        shutil.rmtree(workshop)
        sync_folder(workshop.parent)


def _standing(folder: Path, agent_id: str, vault: Vault) -> tuple[str, str | None]:
    """The uuid of an agent and the state it stands at."""
    db = vault.index(folder, agent_id, read_only=True)
    try:
        index = Index(db, agent_id, read_only=True)
        rows = index.execute("SELECT t.state_id FROM sealed_state s JOIN sealed_turns t ON t.id = s.head")
        return index.identity().uuid, rows[0][0] if rows else None
    finally:
        db.close()

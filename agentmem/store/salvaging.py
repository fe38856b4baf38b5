"""Salvage as a whole: only an index that needs it is built anew, then K/V that cannot be checked are set aside.

Knows how an agent is opened and locked; what is left of an index is :mod:`agentmem.store.salvage`'s affair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from agentmem.errors import DamagedError, StoreError
from agentmem.store.disk import DiskStore
from agentmem.store.failures import says_nothing
from agentmem.store.keys import MemoryKey
from agentmem.store.lock import WriterLock
from agentmem.store.mended import SalvageReport
from agentmem.store.open_part import LOSS, open_part_is_lost
from agentmem.store.salvage import salvage, salvage_open_part
from agentmem.store.vault import vault_of


def salvaged(
    opened: Callable[[], DiskStore],
    folder: Path,
    agent_id: str,
    workshop: Path,
    *,
    key: MemoryKey | None,
    dry_run: bool,
) -> SalvageReport:
    """Salvage an agent if it needs it, then set aside what cannot be checked; ``opened`` opens it for writing."""
    losses: list[str] = []
    if key is not None and open_part_is_lost(folder, agent_id):
        losses.append(LOSS)
        lock = WriterLock(folder / "lock", agent_id)
        try:
            vault = salvage_open_part(folder, agent_id, workshop, key, dry_run=dry_run)
            if dry_run:
                report = salvage(folder, agent_id, workshop, vault, dry_run=True)
                return replace(report, losses=[*losses, *report.losses])
        finally:
            lock.release()
    store = _sound(opened)
    if store is None:
        lock = WriterLock(folder / "lock", agent_id)
        try:
            vault = vault_of(folder, agent_id, key)
            report = salvage(folder, agent_id, workshop, vault, dry_run=dry_run)
        finally:
            lock.release()
        if dry_run:
            return report
        store = opened()
    else:
        report = SalvageReport(dry_run, [], sorted(turn.id for turn in store.every_turn()))
    try:
        repaired = store.repair(lambda _: (), dry_run=dry_run)
        return replace(report, losses=[*losses, *report.losses], repair=repaired)
    finally:
        store.close()


def _sound(opened: Callable[[], DiskStore]) -> DiskStore | None:
    """The agent, open, if its index is as it was written."""
    try:
        store = opened()
    except StoreError as error:
        if type(error) in (DamagedError, StoreError) and not says_nothing(
            error
        ):  # SQLite does not always know damage when it meets it
            return None
        raise
    try:
        findings = store.verify().findings
    except BaseException:
        store.close()
        raise
    if any(finding.file == "agent.db" and not finding.turns for finding in findings):
        store.close()
        return None
    return store

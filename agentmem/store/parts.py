"""What an open agent on disk is made of, and where it stands: handed to the steps that work on all of it.

Knows no verb of the store; the two helpers here are shared by several of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agentmem.errors import StoreError
from agentmem.memory.source import KVLayout
from agentmem.store.base import Turn
from agentmem.store.branch import Branch
from agentmem.store.digest_log import DiskDigestLog
from agentmem.store.extents import Tail
from agentmem.store.index import Index
from agentmem.store.log import DiskTokenLog
from agentmem.store.reader_log import ReaderTokenLog
from agentmem.store.rule_states import BranchRuleStates, RuleStateRows
from agentmem.store.segment import SegmentSet
from agentmem.store.slot_rows import SlotRows
from agentmem.store.turn_rows import TurnRows
from agentmem.store.upkeep_rows import UpkeepRows


@dataclass(frozen=True)
class StoreParts:
    """The tables and files of one open agent."""

    folder: Path
    agent_id: str
    index: Index
    turns: TurnRows
    slots: SlotRows
    segments: SegmentSet
    state_rows: RuleStateRows
    states: BranchRuleStates
    digests: DiskDigestLog
    upkeep: UpkeepRows

    def digests_kept(self, turn_id: int | None) -> int:
        """Digests that cover only tokens up to a turn of the current branch."""
        kind, count = self.turns.digest_mark(turn_id)
        return count if kind == self.digests.kind else 0

    def store_digests(self) -> None:
        """Write down the digests as they are; within a transaction."""
        digests = self.digests
        self.slots.set_digests(digests.kind, digests.count, digests.first_changed, digests.changed_sums())

    def free_tail(self) -> Tail:
        """Where new tokens go: never into a file that somebody else links."""
        tail = self.slots.tail()
        if tail.slot and self.segments.shared(tail.segment):
            return Tail(tail.segment + 1, 0)
        return tail


class Standing:
    """The branch and head an agent stands on, and for an open turn those it came from, if elsewhere."""

    def __init__(self, parts: StoreParts, layout: KVLayout) -> None:
        head = parts.index.head()
        self.branch: Branch = parts.turns.branch(head)
        self.head: Turn | None = None if head is None else parts.turns.get(head)
        self.left: tuple[Branch, Turn | None] | None = None
        self._parts = parts
        mapped, dead = parts.slots.mapped(self.branch), self.branch.dead()
        self.log = (
            ReaderTokenLog(
                *(layout, parts.segments, mapped, parts.free_tail(), dead),
                parts.index.commits,
                lambda: bool(parts.slots.scrubs()),
            )
            if parts.index.read_only
            else DiskTokenLog(layout, parts.segments, mapped, parts.free_tail(), dead)
        )

    @property
    def head_id(self) -> int | None:
        """The number of the current turn."""
        return None if self.head is None else self.head.id

    def move(self, branch: Branch, head: Turn | None) -> None:
        """Stand elsewhere, or on the same branch after it was changed."""
        self.branch, self.head, self.left = branch, head, None
        self.log.move(self._parts.slots.mapped(branch), self._parts.free_tail(), branch.dead())

    def renew(self) -> None:
        """Read where the stored head stands, after turns were changed."""
        head = self._parts.index.head()
        self.move(self._parts.turns.branch(head), None if head is None else self._parts.turns.get(head))

    def sync(self) -> None:
        """Put the open turn's K/V on the medium. Raises StoreError, after which nothing may be committed."""
        try:
            self.log.sync()
        except OSError as error:
            # after a failed sync the kernel may call the pages clean although they never arrived
            self._parts.index.refuse(f"K/V could not be synced ({error.strerror})")
            raise StoreError(
                f"agent {self._parts.agent_id!r}: K/V could not be synced ({error.strerror}); the turn is not "
                "committed. Close the agent, look after the disk, and open it again."
            ) from error

    def step_aside(self, branch: Branch, head: Turn | None) -> None:
        """Stand elsewhere for the length of an open turn."""
        if self.left is None:
            self.left = (self.branch, self.head)
        self.branch, self.head = branch, head

    def step_back(self) -> None:
        """The open turn was dropped: stand where it was begun."""
        if self.left is not None:
            self.branch, self.head = self.left
            self.left = None

"""What an open agent on disk is made of, and where it stands: handed to the steps that work on all of it.

Knows no verb of the store; the two helpers here are shared by several of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agentmem.errors import DamagedError, StateNotFoundError, StoreError
from agentmem.memory.source import KVLayout
from agentmem.store.base import Turn
from agentmem.store.branch import Branch
from agentmem.store.digest_log import DiskDigestLog
from agentmem.store.extents import BranchMap, Tail
from agentmem.store.index import Index
from agentmem.store.log import DiskTokenLog
from agentmem.store.reader_log import ReaderTokenLog, stale
from agentmem.store.rule_states import BranchRuleStates, RuleStateRows
from agentmem.store.segment import SegmentSet
from agentmem.store.slot_rows import SlotRows
from agentmem.store.trail import TrailRows
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
    trail: TrailRows

    def stored_head(self) -> Turn | None:
        """The turn that the index says is the head."""
        number = self.index.head()
        return None if number is None else self.turns.get(number)

    def standing(self, head: Turn | None) -> tuple[Branch, BranchMap]:
        """The branch of a turn, and where its tokens lie. Raises DamagedError."""
        if head is not None:
            depth = self.turns.depth(head.id)
            found = self.trail.read(head.id, depth, head.stop, self.turns.set_aside())
            if found is not None:
                return found
        branch = self.turns.branch(None if head is None else head.id)
        return branch, self.slots.mapped(branch)

    def renew_trail(self) -> None:
        """Write down anew where the stored head stands; within the transaction that changed it."""
        branch = self.turns.branch(self.index.head())
        self.trail.write(branch, self.slots.mapped(branch))

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
    """The branch and head an agent stands on, and for an open turn those it came from, if elsewhere.

    Whoever only reads makes it within a snapshot of the index.
    """

    def __init__(self, parts: StoreParts, layout: KVLayout) -> None:
        self.left: tuple[Branch, Turn | None] | None = None
        self._parts = parts
        self._unchanged_at = parts.index.commits()
        self._file = _file_of(parts.folder)
        self.head: Turn | None = parts.stored_head()
        mapped: BranchMap
        self.branch: Branch
        self.branch, mapped = parts.standing(self.head)
        where = (layout, parts.segments, mapped, parts.free_tail(), self.branch.dead())
        self.log = (
            ReaderTokenLog(*where, parts.index.commits, self._unchanged, lambda: bool(parts.slots.scrubs()))
            if parts.index.read_only
            else DiskTokenLog(*where)
        )

    @property
    def head_id(self) -> int | None:
        """The number of the current turn."""
        return None if self.head is None else self.head.id

    def branch_to(self, target: Turn | None) -> tuple[Branch, BranchMap]:
        """The branch of any turn, and where its tokens lie; a part of the current one is cut off it."""
        if target is not None and target.id in self.branch:
            mapped = self.log.mapped.copy()
            mapped.truncate(target.stop)
            return self.branch.upto(target.id), mapped
        return self._parts.standing(target)

    def move(self, branch: Branch, mapped: BranchMap, head: Turn | None) -> None:
        """Stand elsewhere, or on the same branch after it was changed."""
        self.branch, self.head, self.left = branch, head, None
        self.log.move(mapped, self._parts.free_tail(), branch.dead())

    def renew(self) -> None:
        """Read where the stored head stands, after turns were changed."""
        head = self._parts.stored_head()
        self.move(*self._parts.standing(head), head)

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

    @contextmanager
    def told(self) -> Iterator[None]:
        """Whoever only reads is told that what it looked at is not what it was any more. Raises StaleReaderError."""
        try:
            yield
        except (StateNotFoundError, DamagedError) as error:
            if not self._unchanged():
                raise stale(self._parts.agent_id, "turns of its history were removed") from error
            raise
        if not self._unchanged():
            raise stale(self._parts.agent_id, "turns of its history were forgotten, moved or removed")

    def _unchanged(self) -> bool:
        """Whether the index still has these turns, none of them forgotten since, and their tokens where they were."""
        parts, mine = self._parts, self.head
        if mine is None or not parts.index.read_only:
            return True
        if _file_of(parts.folder) != self._file:  # removed, or another agent of that name by now
            return False
        with parts.index.snapshot():
            commits = parts.index.commits()
            if commits == self._unchanged_at:
                return True
            try:
                branch, mapped = parts.standing(parts.stored_head())  # as a rule the writer goes on from here
                if mine.id not in branch:
                    branch, mapped = parts.standing(parts.turns.get(mine.id))
            except StateNotFoundError:
                return False
        branch = branch.upto(mine.id)
        mapped.truncate(mine.stop)
        was, found = self.branch, (branch.ids, branch.dead(), mapped.runs())
        if found != (was.ids, was.dead(), self.log.mapped.runs()):
            return False
        self._unchanged_at = commits
        return True


def _file_of(folder: Path) -> tuple[int, int] | None:
    """Which file the index is: one that is held open lends its number to no other."""
    try:
        found = (folder / "agent.db").stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino

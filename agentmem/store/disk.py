"""One open agent on disk: joins the index, the segments and the digests into a store.

Knows the order of things: bytes first, then the index, then the acknowledgement. Knows no model. One
caller at a time; not for use in a forked child.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import nullcontext
from pathlib import Path

from agentmem.errors import InputError
from agentmem.memory.source import DigestLog
from agentmem.store.access import Access
from agentmem.store.base import HEAD, AgentIdentity, CollectReport, Json, NewTurn, Origin, Turn, VerifyReport
from agentmem.store.branch import Branch, BranchTurn
from agentmem.store.branch_origins import BranchOrigins
from agentmem.store.checking import verify
from agentmem.store.collecting import collect, remove_orphans
from agentmem.store.disk_upkeep import DiskUpkeep
from agentmem.store.files import on_tmpfs
from agentmem.store.forgetting import Eraser
from agentmem.store.index import Index
from agentmem.store.keys import MemoryKey
from agentmem.store.lock import WriterLock
from agentmem.store.log import DiskTokenLog
from agentmem.store.mended import RepairReport
from agentmem.store.mending import OLD_LOG, Ways, repair
from agentmem.store.parts import Standing, StoreParts
from agentmem.store.rule_states import BranchRuleStates, RuleStateRows
from agentmem.store.segment import nothing_live
from agentmem.store.slot_rows import SlotRows
from agentmem.store.trail import TrailRows
from agentmem.store.turn_rows import TurnRows
from agentmem.store.upkeep import Reason
from agentmem.store.upkeep_rows import UpkeepRows
from agentmem.store.vault import vault_of
from agentmem.store.volatile_digests import VolatileDigestLog


class DiskStore:
    """An agent's folder, opened. See :class:`agentmem.store.base.Store`.

    Args:
        folder: the agent's folder.
        agent_id: for messages.
        lock: the right to write, released by ``close``; None opens read-only.
        key: the user's, for an agent that is encrypted.

    Raises:
        DamagedError: the index cannot be read, or contradicts itself.
        FormatVersionError: a newer agentmem wrote it.
        KeyNeededError, WrongKeyError: the key does not fit.
    """

    def __init__(
        self, folder: Path, agent_id: str, lock: WriterLock | None, key: MemoryKey | None = None
    ) -> None:
        self._folder = folder
        self._agent_id = agent_id
        self._access = Access(folder / "agent.db", agent_id, lock)
        vault = vault_of(folder, agent_id, key)
        db = vault.index(folder, agent_id, read_only=lock is None)
        try:
            self._index = Index(db, agent_id, read_only=lock is None, folder=folder)
            # beside a reader the writer may go on meanwhile
            with self._index.snapshot() if lock is None else nullcontext():
                self._identity = self._index.identity()
                layout = self._identity.layout
                self._turns = TurnRows(self._index)
                self._origins = BranchOrigins(self._turns)
                self._slots = SlotRows(self._index)
                tokens, blocks = self._index.file_sizes()
                mapped = lock is not None or not on_tmpfs(folder)  # beside a reader a writer may punch holes
                live = self._slots.live if mapped else nothing_live
                kv, digests, rows = folder / "kv", folder / "digests", RuleStateRows(self._index)
                self._segments = vault.segments(kv, layout, tokens, agent_id, self._slots.pages, live)
                self._states = BranchRuleStates(rows, lambda: self._at.branch)
                stored = self._slots.digests()
                self._disk_digests = vault.digests(
                    digests, layout.decoded, blocks, agent_id, stored, self._states
                )
                self._parts = StoreParts(
                    folder,
                    agent_id,
                    self._index,
                    self._turns,
                    self._slots,
                    self._segments,
                    rows,
                    self._states,
                    self._disk_digests,
                    UpkeepRows(self._index),
                    TrailRows(self._index),
                )
                self._eraser = Eraser(self._parts)
                if lock is not None:
                    self._clear_leftovers()
                self._at = Standing(self._parts, layout)
            self._upkeep = DiskUpkeep(self._parts, self._at, self._access, self._eraser)
        except BaseException:
            db.close()
            raise
        # without the right to write, digests that are missing are made in memory
        self._digests: DigestLog = self._disk_digests
        if lock is None:
            self._digests = VolatileDigestLog(layout.decoded, self._disk_digests)

    @property
    def identity(self) -> AgentIdentity:
        """Who this is."""
        return self._identity

    @property
    def read_only(self) -> bool:
        """True when nothing may be committed."""
        return self._access.read_only

    @property
    def log(self) -> DiskTokenLog:
        """Raw K/V of the current branch."""
        return self._at.log

    @property
    def digests(self) -> DigestLog:
        """Block digests of the current branch."""
        return self._digests

    @property
    def head(self) -> Turn | None:
        """The current turn; None for an empty memory."""
        return self._at.head

    @property
    def upkeep(self) -> DiskUpkeep:
        """Pins, expiries, the audit, and rebuilding."""
        return self._upkeep

    @property
    def bytes_read(self) -> int:
        """K/V and digest bytes checked and copied out of files since opening."""
        return self._segments.bytes_read + self._disk_digests.bytes_read

    @property
    def turn_count(self) -> int:
        """How many turns there are from the root to the head; reads none of them."""
        return len(self._at.branch)

    def turns(self, *, limit: int | None = None, at: str | None = HEAD) -> list[Turn]:
        """The turns from the root to the head or to the state ``at``; with ``limit``, the newest ones."""
        branch = self._at.branch if at == HEAD else self._at.branch_to(self._state(at))[0]
        with self._at.told():
            return self._turns.newest(branch, limit)

    def every_turn(self) -> list[Turn]:
        """The turns of all branches, by number; forgotten ones too."""
        return self._turns.every()

    def turn(self, turn_id: int) -> Turn:
        """One turn of any branch. Raises StateNotFoundError."""
        return self._turns.get(turn_id)

    def turn_at(self, position: int) -> Turn:
        """The turn of the current branch that holds token ``position``. Raises InputError."""
        self._access.require_open()
        turn_id = self._at.branch.holding(position)
        if turn_id is None:
            raise InputError(f"token {position} is not in the history, which holds {self._at.branch.length}")
        with self._at.told():
            return self._turns.get(turn_id)

    def find_state(self, state_id: str) -> Turn:
        """The turn of that state id, of any branch. Raises StateNotFoundError, StateForgottenError."""
        return self._turns.find_state(self._parts.upkeep.now(state_id), self._at.branch)

    def observed_parts(self, source: str) -> list[Turn]:
        """Turns of the current branch with this source and a part number, in order."""
        with self._at.told():
            return self._turns.observed_parts(source, self._at.branch)

    def origins(self, sources: Collection[str] | None = None) -> list[Origin]:
        """Where the words of the current branch's turns came from; forgotten ones are left out."""
        with self._at.told():
            if sources is not None:
                return self._turns.origins_of(sources, self._at.branch)
            return self._origins.of(self._at.branch)

    def token_ids(self, start: int, stop: int) -> list[int]:
        """Ids of tokens [start, stop) of the current branch; -1 for forgotten ones."""
        self._access.require_open()
        if not 0 <= start <= stop <= self._at.branch.length:
            raise InputError(
                f"tokens {start} to {stop} are not in the history, which holds {self._at.branch.length}"
            )
        with self._at.told():
            return self._turns.token_ids(start, stop, self._at.branch)

    def search(self, query: str, *, limit: int = 20) -> list[Turn]:
        """Turns of the current branch whose text holds all the words, newest first."""
        with self._at.told():
            return self._turns.search(query, self._at.branch, limit)

    def begin(self, after: str | None = HEAD) -> None:
        """Open a turn that goes on from ``after``; the head itself moves with the commit alone.

        Raises ReadOnlyError, StaleWriterError, ClosedError, StateNotFoundError, StateForgottenError.
        """
        self._access.require_writer("begin a turn")
        target = self._at.head if after == HEAD else self._state(after)
        if _id_of(target) == self._at.head_id:
            self._disk_digests.begin()
            self._at.log.begin()
        else:
            self._begin_elsewhere(target)
        self._access.turn_open = True

    def commit(self, turn: NewTurn) -> Turn:
        """Make the open turn durable, then return it.

        Raises:
            InputError: its ids are not as many as its tokens, or a field is not plain JSON.
            StoreError: the disk failed; the turn is not committed.
        """
        self._access.require_turn()
        added = self._at.log.length - self._at.log.committed
        if len(turn.token_ids) != added:
            raise InputError(f"the turn added {added} tokens to the log, but has {len(turn.token_ids)} ids")
        self._at.sync()
        extents, pages = self._at.log.new_extents(), self._at.log.new_pages()
        digests = self._disk_digests
        changed = digests.changed_sums()
        with self._index.transaction():
            committed = self._turns.insert(turn, self._at.head, (digests.kind, digests.count))
            self._slots.add_extents(committed.id, extents)
            self._slots.set_pages(pages)
            self._slots.set_digests(digests.kind, digests.count, digests.first_changed, changed)
            self._states.store(committed.id)
            if turn.expires_at is not None:
                self._parts.upkeep.set_expiry(committed.id, turn.expires_at)
            self._index.set_head(committed.id)
            added_turn = BranchTurn(committed.id, committed.start, committed.stop)
            self._parts.trail.extend(self._at.branch, self._at.log.mapped, added_turn)
        self._states.drop()
        self._at.log.settle(pages)
        digests.settle()
        self._at.branch.append(added_turn)
        self._at.head = committed
        self._at.left = None
        self._access.turn_open = False
        return committed

    def abort(self) -> None:
        """Drop the open turn, if any: head, log and digests are as they were before it."""
        if self._access.turn_open:
            self._at.log.abort()
            self._states.drop()
            self._disk_digests.abort()
            self._at.step_back()
            self._upkeep.drop_rebuild()
            self._access.turn_open = False

    def rewind(self, state_id: str | None) -> None:
        """Move the head to that state (None: before the first turn). Later turns stay reachable by id."""
        self._access.require_writer("rewind")
        target = self._state(state_id)
        branch, mapped = self._at.branch_to(target)
        self._drop_digests(branch)
        with self._index.transaction():
            self._index.set_head(_id_of(target))
            self._parts.store_digests()
            self._parts.trail.write(branch, mapped)
        self._disk_digests.settle()
        self._at.move(branch, mapped, target)

    def forget(self, turn_ids: Sequence[int], *, reason: Reason | None = None) -> int:
        """Drop turns' text, ids and K/V for good; returns the tokens dropped. Ranges become dead.

        Turns that were forgotten before are passed over.

        Raises:
            StateNotFoundError: there is no such turn; nothing was forgotten.
            DamagedError: a page that also holds other tokens is damaged; nothing was forgotten.
            StoreError: the turns are forgotten, but their bytes could not be overwritten yet; the next
                opening does it.
        """
        self._access.require_writer("forget")
        return self._eraser.forget(turn_ids, self._at, reason)

    def collect(self, *, prune: bool = False) -> CollectReport:
        """Free slots no turn reaches; with ``prune`` drop the branches the head does not stand on first."""
        self._access.require_writer("collect")
        try:
            return collect(self._parts, self._at.branch, prune=prune)
        finally:  # what was pruned is gone, even if the disk fails after it
            self._at.renew()

    def verify(self, *, deep: bool = False) -> VerifyReport:
        """Check the index, file sizes and (deep) every checksum. Never raises for damage it can report."""
        self._access.require_open()
        return verify(self._parts, deep=deep)

    def repair(self, ways: Ways, *, dry_run: bool = False) -> RepairReport:
        """Replace damaged K/V, or set their tokens aside; one commit at the end. Raises StoreError."""
        if dry_run:
            self._access.require_open()
        else:
            self._access.require_writer("repair")
        report = repair(self._parts, self._at.branch, ways, dry_run=dry_run)
        if not dry_run:
            self._at.renew()
        return report

    def note(self, key: str, value: Json) -> None:
        """Store a small named JSON value, durable at once; also while a turn is open."""
        self._access.require_process()
        self._index.note(key, value)

    def noted(self, key: str) -> Json:
        """A value stored by ``note``; None when there is none."""
        return self._index.noted(key)

    def park(self) -> None:
        """Give the right to write up until ``unpark``; the connection, maps and checked pages stay."""
        if not self._access.parked:
            self._access.park()
            self._index.park()

    def unpark(self, wait: float = 0.0) -> bool:
        """Take the right to write again; False, and closed, when another writer or a delete came between.

        Raises AgentBusyError (the store stays parked), ClosedError, StaleWriterError.
        """
        if not self._access.parked:
            self._access.require_open()
            return True
        current = self._access.unpark(wait)
        try:
            current = current and self._index.unpark()
        except BaseException:
            self.close()
            raise
        if not current:
            self.close()
        return current

    def close(self) -> None:
        """Release the agent; the open turn is dropped. Closing twice is fine."""
        if self._access.closed:
            return
        parked = self._access.parked
        self._access.close()
        if not self._access.elsewhere:
            self.abort()
            if not parked:
                self._eraser.finish_late()
            self._index.close()  # in a forked child the connection is the parent's to close
        self._segments.close()
        self._disk_digests.close()
        self._access.release()

    def _state(self, state_id: str | None) -> Turn | None:
        """The turn of a state; None for the state before the first turn."""
        return None if state_id is None else self.find_state(state_id)

    def _begin_elsewhere(self, target: Turn | None) -> None:
        branch, mapped = self._at.branch_to(target)
        if self._drop_digests(branch):
            with self._index.transaction():  # the turn overwrites them, and may still be dropped
                self._parts.store_digests()
            self._disk_digests.settle()
        self._disk_digests.begin()
        self._at.log.begin(mapped, branch.dead())
        self._at.step_aside(branch, target)

    def _drop_digests(self, branch: Branch) -> bool:
        """Drop the digests that another branch does not share; whether there were any."""
        before = self._disk_digests.count
        self._disk_digests.truncate(self._parts.digests_kept(branch.last_shared(self._at.branch)))
        return self._disk_digests.count < before

    def _clear_leftovers(self) -> None:
        """Finish what a killed writer began, and remove files it never committed."""
        (self._folder / OLD_LOG).unlink(missing_ok=True)  # of an index that was salvaged: this one is whole
        remove_orphans(self._folder, self._segments, self._slots.segments())
        self._eraser.finish_begun()


def _id_of(turn: Turn | None) -> int | None:
    return None if turn is None else turn.id

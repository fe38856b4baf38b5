"""Rebuilding: turns read again in new slots, and put into the place of the old ones in one transaction.

A rebuild is one open turn of the log that ends as many: until its commit the index knows nothing of it, so a
kill leaves the old state, and its slots are used again. Knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agentmem.errors import InputError, StoreError
from agentmem.store.base import Turn
from agentmem.store.branch import Branch, BranchTurn
from agentmem.store.collecting import remove_orphans, trim
from agentmem.store.extents import BranchMap, Extent
from agentmem.store.failures import typed
from agentmem.store.forgetting import Eraser, scrubbed_sums
from agentmem.store.pages import PageSums
from agentmem.store.parts import Standing, StoreParts
from agentmem.store.rebuild_plan import RebuildPlan
from agentmem.store.slot_rows import SlotRange
from agentmem.store.upkeep import Reason, Rewritten


@dataclass(frozen=True)
class Staged:
    """A turn that was read again: its record, its ids, where its tokens lie, and how many digests there were then."""

    turn: Turn
    ids: Sequence[int]
    extents: Sequence[Extent]
    digests: tuple[str | None, int]


class Rebuild:
    """One rebuild of one open agent, from ``begin_rebuild`` to its commit."""

    def __init__(self, parts: StoreParts, at: Standing, plan: RebuildPlan) -> None:
        self.plan = plan
        self._parts = parts
        self._at = at
        self._old = {turn.id: turn for turn in parts.turns.every()}
        self._staged: dict[int, Staged] = {}
        self._next: int | None = None
        self._freed: Sequence[SlotRange] = ()
        self._drop_digests()

    def stand_before(self, turn_id: int) -> None:
        """See :class:`agentmem.store.upkeep.Upkeep`."""
        parent = self.plan.parents[turn_id]
        if (
            parent in self._staged and parent == self._at.head_id
        ):  # the turn staged last: it is stood on already
            self._next = turn_id
            return
        path = self._path(parent)
        branch = self._branch(path)
        self._keep_shared_digests(branch)
        self._at.log.stand(self._map(path), branch.dead())
        self._at.step_aside(branch, path[-1] if path else None)
        self._next = turn_id

    def stage(self, new: Rewritten) -> None:
        """See :class:`agentmem.store.upkeep.Upkeep`. Raises StoreError; the turn is not staged then."""
        if new.turn != self._next:
            raise StoreError(f"turn {new.turn} was read again, but turn {self._next} was to be")
        log, digests = self._at.log, self._parts.digests
        added = log.length - log.committed
        if len(new.token_ids) != added:
            raise InputError(
                f"turn {new.turn} added {added} tokens to the log, but has {len(new.token_ids)} ids"
            )
        turn = replace(
            self._old[new.turn],
            parent=self.plan.parents[new.turn],
            start=log.committed,
            stop=log.length,
            state_id=new.state_id,
            settings=dict(new.settings),
            receipt=dict(new.receipt),
        )
        staged = Staged(turn, new.token_ids, log.new_extents(), (digests.kind, digests.count))
        with typed(self._parts.agent_id, "writing a rebuilt turn"):
            log.end_part()
        self._staged[turn.id] = staged
        self._parts.states.stage(turn.id)
        self._at.branch.append(BranchTurn(turn.id, turn.start, turn.stop))
        self._at.head, self._next = turn, None

    def commit(self, eraser: Eraser, reason: Reason) -> int:
        """See ``Upkeep.commit_rebuild``; ``clear`` is to follow."""
        missing = [number for number in self.plan.todo if number not in self._staged]
        if missing:
            raise StoreError(f"turns {missing} were not read again; the rebuild cannot be committed")
        parts, plan = self._parts, self.plan
        self._keep_shared_digests(self._branch(self._path(plan.head)))
        living = [number for number in plan.gone if not self._old[number].forgotten]
        tokens = sum(self._old[number].stop - self._old[number].start for number in living)
        self._freed = parts.slots.ranges([*plan.gone, *plan.todo])
        try:
            pages = self._pages()
            with parts.index.transaction():
                self._write()
                parts.upkeep.add_audit(reason, living, tokens)
                empty = [number for number in parts.slots.segments() if not parts.slots.used(number)]
                for number in empty:  # its file goes, or stays with a fork as it is
                    parts.slots.remove_segment(number)
                eraser.list_work(self._freed, [page for page in pages if page[0] not in empty])
        except BaseException:  # the tables of checksums speak of what was not committed: read them anew
            for staged in self._staged.values():
                for extent in staged.extents:
                    parts.segments.drop(extent.segment)
            raise
        self._at.log.settle(())
        parts.states.drop()
        parts.digests.settle()
        return tokens

    def clear(self, eraser: Eraser) -> None:
        """After the commit: overwrite what was replaced, and let go of files that hold nothing now."""
        parts = self._parts
        try:
            eraser.finish()
            with parts.index.transaction():
                known = set(parts.slots.segments())
                trim(parts, sorted({range_.segment for range_ in self._freed} & known))
            remove_orphans(parts.folder, parts.segments, parts.slots.segments())
        finally:
            self._at.renew()

    def _write(self) -> None:
        parts, plan = self._parts, self.plan
        parts.slots.remove_extents([*plan.gone, *plan.todo])
        for number in plan.todo:
            staged = self._staged[number]
            parts.turns.rewrite(staged.turn, staged.ids, staged.digests)
            parts.slots.add_extents(number, staged.extents)
        parts.states.store_staged()
        parts.index.set_head(plan.head)
        parts.turns.remove(plan.gone)
        moved: dict[str, str | None] = {self._old[number].state_id: None for number in plan.gone}
        moved |= {self._old[number].state_id: self._staged[number].turn.state_id for number in plan.todo}
        parts.upkeep.move_states(moved)
        parts.renew_trail()

    def _pages(self) -> list[tuple[int, PageSums]]:
        """Checksums of all touched pages, with the new tokens, and with zeros where the old ones are."""
        self._at.sync()
        new = self._at.log.pages_of(e for number in self.plan.todo for e in self._staged[number].extents)
        for segment, page in new:
            self._parts.segments.get(segment).pages.renew([page])
        return new + scrubbed_sums(self._parts.segments, self._freed)

    def _path(self, number: int | None) -> list[Turn]:
        """The turns from the root to one, as the rebuilt tree has them."""
        path = []
        while number is not None:
            staged = self._staged.get(number)
            path.append(self._old[number] if staged is None else staged.turn)
            number = path[-1].parent
        return path[::-1]

    def _map(self, path: Sequence[Turn]) -> BranchMap:
        """Where the tokens of a path lie."""
        staged = [self._staged[turn.id] for turn in path if turn.id in self._staged]
        kept = self._parts.slots.extents(self._parts.turns.branch(self._last_kept(path)))
        return BranchMap([*kept, *(extent for one in staged for extent in one.extents)])

    def _branch(self, path: Sequence[Turn]) -> Branch:
        branch = self._parts.turns.branch(self._last_kept(path))
        for turn in path[len(branch) :]:
            branch.append(BranchTurn(turn.id, turn.start, turn.stop))
        return branch

    def _last_kept(self, path: Sequence[Turn]) -> int | None:
        """The last turn of a path that is as it was: all before it are, too."""
        return next((turn.id for turn in reversed(path) if turn.id not in self._staged), None)

    def _drop_digests(self) -> None:
        """Digests that any turn of the rebuild may write over are dropped for good first: it may be given up."""
        firsts = {parent for parent in self.plan.parents.values() if parent not in self.plan.parents}
        shared = (self._branch(self._path(first)).last_shared(self._at.branch) for first in firsts)
        self._parts.digests.truncate(min(map(self._kept, shared), default=self._parts.digests.count))
        with self._parts.index.transaction():
            self._parts.store_digests()
        self._parts.digests.settle()
        self._parts.digests.begin()

    def _keep_shared_digests(self, branch: Branch) -> None:
        """Before standing on another branch: drop the digests that the one stood on does not share with it."""
        if branch.ids != self._at.branch.ids:
            self._parts.digests.truncate(self._kept(branch.last_shared(self._at.branch)))

    def _kept(self, number: int | None) -> int:
        """Digests that cover only tokens up to a turn."""
        if number is None or number not in self._staged:
            return self._parts.digests_kept(number)
        kind, count = self._staged[number].digests
        return count if kind == self._parts.digests.kind else 0

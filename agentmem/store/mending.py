"""Repair: damaged keys and values are computed anew, or set aside so that nothing attends to them.

Everything is staged in new slots first; then one transaction points the turns at them, and only after it is
anything old removed. Until that transaction a failure or a kill leaves the old state as it was. What cannot
be computed now stays where it is, named by the index, and its tokens read as zeros and are dead until a later
repair. Knows no model: it is handed ways to encode a turn, tried in order until one gives what was lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from agentmem.errors import DamagedError
from agentmem.memory.source import RuleState
from agentmem.store.base import Turn
from agentmem.store.branch import Branch
from agentmem.store.collecting import remove_orphans
from agentmem.store.comparing import agrees, proven
from agentmem.store.damage import Damage, Piece
from agentmem.store.extents import BranchMap, Extent
from agentmem.store.failures import typed
from agentmem.store.log import DiskTokenLog
from agentmem.store.mended import Encode, Outcome, RepairedRange, RepairReport
from agentmem.store.pages import PAGE_SLOTS, page_range
from agentmem.store.parts import StoreParts
from agentmem.store.staged_states import StagedRuleStates
from agentmem.store.staging import Staging
from agentmem.store.volatile_digests import VolatileDigestLog

OLD_LOG = "agent.db-wal.damaged"
"""Where a salvage puts the write-ahead log of a damaged index until the new index is in its place."""

Found = TypeVar("Found")
Ways = Callable[[Turn], Sequence[Encode]]
"""How a turn's K/V may be computed anew, best guess first; none without its model."""


def repair(parts: StoreParts, branch: Branch, ways: Ways, *, dry_run: bool) -> RepairReport:
    """Repair one agent between two turns; ``branch`` is the one its digests are of.

    Raises:
        StoreError: the disk failed, or would not give again what was sound a moment before; nothing was changed.
    """
    with typed(parts.agent_id, "repairing"):
        mender = Mender(parts, ways)
        try:
            lost = _lost_digests(parts, branch, mender.turns)
            if dry_run:
                return mender.report(planned=True, digest_blocks=lost)
            mender.stage()
            report = mender.report(planned=False, digest_blocks=lost)
            if mender.changed or lost:
                _commit(mender, parts, branch, lost)
            return report
        except BaseException:
            with suppress(OSError):
                mender.discard()
            raise
        finally:
            mender.close()


def _lost_digests(parts: StoreParts, branch: Branch, turns: Sequence[int]) -> int:
    """How many stored digests are damaged, or of keys that are replaced: all behind the first of these."""
    stored, kept = parts.slots.digests().count, parts.digests.count
    for turn in turns:
        if turn in branch:
            kept = min(kept, parts.digests_kept(branch.parent_of(turn)))
    return max(0, stored - kept)


def _commit(mender: Mender, parts: StoreParts, branch: Branch, lost: int) -> None:
    digests = parts.digests
    digests.begin()
    try:
        digests.truncate(max(0, parts.slots.digests().count - lost))
        with parts.index.transaction():
            mender.commit()
            parts.trail.write(branch, parts.slots.mapped(branch))
            parts.store_digests()
    except BaseException:
        digests.abort()
        raise
    digests.settle()
    parts.segments.keep_open(())  # their checksums have changed
    with suppress(OSError):  # else the next opening does it
        remove_orphans(parts.folder, parts.segments, parts.slots.segments())


class Mender:
    """One repair: what is damaged, what takes its place, and what is left over."""

    def __init__(self, parts: StoreParts, ways: Ways) -> None:
        self._parts = parts
        self._layout = parts.index.identity().layout
        self._ways = ways
        self._damage = Damage(parts.slots, parts.segments)
        self._bad_states = set(parts.state_rows.damaged())
        self._staging = Staging(self._layout, parts.segments, parts.slots.next_segment())
        self._extents: dict[int, list[Extent]] = {}
        for turn, extent in parts.slots.all_extents():
            self._extents.setdefault(turn, []).append(extent)
        self._placed: dict[int, list[tuple[Piece, Sequence[Extent]]]] = {}  # by old segment
        self._aside: dict[int, list[Piece]] = {}  # by turn
        for turn, pieces in self._damage.by_turn.items():
            self._aside[turn] = [piece for piece in pieces if piece.condition == "broken"]
        self._made_states: dict[int, RuleState] = {}

    @property
    def turns(self) -> list[int]:
        """Turns whose keys change, oldest first: a turn's parent always has the lower id."""
        return sorted(turn for turn, pieces in self._aside.items() if pieces)

    @property
    def changed(self) -> bool:
        """Whether there is anything to commit: new slots, states, or rows of what no token lies in any more."""
        named = {
            (piece.segment, page)
            for pieces in self._damage.by_turn.values()
            for piece in pieces
            for page in page_range(piece.slot, piece.slot + piece.stop - piece.start)
        }
        unused = set(self._damage.wrong) - named or set(self._damage.flawed) - {one for one, _ in named}
        return bool(self._placed or self._made_states or unused)

    def stage(self) -> None:
        """Put what takes the damaged tokens' place into new slots. Raises StoreError, and what encoding raises."""
        for turn_id in sorted({*self._damage.by_turn, *self._bad_states}):
            self._stage_turn(turn_id, self._damage.by_turn.get(turn_id, ()))

    def report(self, *, planned: bool, digest_blocks: int) -> RepairReport:
        """What was damaged and what became of it, or what would."""
        exact = set() if planned else proven(self._damage, self._placed, self._parts.segments)
        ranges: list[RepairedRange] = []
        for turn_id in sorted(self._damage.by_turn):
            turn = self._turn(turn_id)
            text_kept = turn is not None and (turn.forgotten or self._ids(turn) is not None)
            for piece in self._damage.by_turn[turn_id]:
                if piece.condition == "movable" and not self._damage.files[piece.segment].flawed:
                    label = self._label(piece.segment)  # it was set aside, and its bytes are back
                    ranges.append(RepairedRange(turn_id, piece.start, piece.stop, label, "exact", text_kept))
                elif piece.condition == "broken":
                    ranges += self._outcomes(turn, piece, exact, text_kept=text_kept, planned=planned)
        return RepairReport(
            planned,
            ranges,
            sorted(self._bad_states if planned else self._made_states),
            digest_blocks,
            [self._label(number) for number in self._damage.flawed],
        )

    def commit(self) -> None:
        """Point the turns at the new slots; within a transaction of the index."""
        slots, rows = self._parts.slots, [piece for pieces in self._aside.values() for piece in pieces]
        for turn_id in self._damage.by_turn:
            slots.remove_extents([turn_id])
            slots.add_extents(turn_id, self._extents[turn_id])
        used = {
            (one.segment, page)
            for turn_id in self._damage.by_turn
            for one in self._extents[turn_id]
            for page in page_range(one.slot, one.slot + one.count)
        }
        slots.set_pages((key[0], self._staging.pages[key]) for key in sorted(used & set(self._staging.pages)))
        slots.put_aside((one.turn, one.start, one.stop, one.segment, one.slot) for one in rows)
        for turn_id, state in self._made_states.items():
            self._parts.state_rows.put(turn_id, state)
        self._drop_replaced(rows)

    def discard(self) -> None:
        """Remove what was staged."""
        remove_orphans(self._parts.folder, self._parts.segments, self._parts.slots.segments())

    def close(self) -> None:
        """Close the old files."""
        self._damage.close()

    # -- one turn -------------------------------------------------------------------------------------

    def _stage_turn(self, turn_id: int, pieces: Sequence[Piece]) -> None:
        turn, whole = self._turn(turn_id), None
        broken = any(piece.condition == "broken" for piece in pieces)
        forgotten = turn is not None and turn.forgotten
        if turn is not None and not forgotten and (broken or turn_id in self._bad_states):
            whole = self._encoded(turn, pieces)
        kept: list[Extent] = []
        for piece in pieces:
            now = [Extent(piece.start, piece.segment, piece.slot, piece.stop - piece.start)]
            if piece.condition == "movable":
                now = self._staging.copy(self._damage.files[piece.segment], piece)
            elif piece.condition == "broken" and whole is not None:
                now = BranchMap([Extent(0, -1, 0, whole[0].start), *whole]).pieces(piece.start, piece.stop)
            elif piece.condition == "broken" and piece.aside and not forgotten:
                kept += self._where(turn_id, piece)  # zeros by now
                continue
            elif piece.condition == "broken":
                now = self._staging.zeros(piece.start, piece.stop)
            if piece.condition != "sound":
                self._placed.setdefault(piece.segment, []).append((piece, now))
            kept += now
        if pieces:
            self._extents[turn_id] = kept
        if whole is not None or forgotten:
            self._aside[turn_id] = []

    def _where(self, turn_id: int, piece: Piece) -> list[Extent]:
        """Where the index says that tokens lie."""
        own = self._extents[turn_id]
        return BranchMap([Extent(0, -1, 0, own[0].start), *own]).pieces(piece.start, piece.stop)

    def _encoded(self, turn: Turn, pieces: Sequence[Piece]) -> list[Extent] | None:
        """Where the turn's K/V, computed anew, lie; None when they cannot be."""
        ids, ways = self._ids(turn), self._ways(turn)
        if not ids or not ways:
            return None
        branch = self._parts.turns.branch(turn.parent)
        states = StagedRuleStates(self._parts.state_rows, branch, self._made_states)
        for number, encode in enumerate(ways):
            log = self._log_before(branch)
            try:
                encode(ids, log, VolatileDigestLog(self._layout.decoded, states=states))
                if number + 1 == len(ways) or agrees(self._damage, pieces, log):
                    if states.kept is not None and turn.id in self._bad_states:
                        self._made_states[turn.id] = states.kept
                    return self._staging.keep(log)
                log.abort()
            except DamagedError:
                log.abort()
                if self._bad_states.isdisjoint(branch.ids):
                    raise  # what was sound a moment ago: the disk would not give it, and later turns stand on this one
                return None  # the rule's state that it begins with is damaged, too
            except BaseException:
                log.abort()
                raise
        return None

    def _log_before(self, branch: Branch) -> DiskTokenLog:
        """A log of everything before a turn, as repaired so far."""
        extents = [one for turn_id in branch.ids for one in self._extents.get(turn_id, ())]
        aside = [
            (piece.start, piece.stop) for turn_id in branch.ids for piece in self._aside.get(turn_id, ())
        ]
        return self._staging.log(BranchMap(extents), Branch((), [*branch.forgotten(), *aside]).dead())

    def _turn(self, turn_id: int) -> Turn | None:
        return _at_second_try(lambda: self._parts.turns.get(turn_id))

    def _ids(self, turn: Turn) -> list[int] | None:
        """A turn's token ids, if they are all there."""
        ids = _at_second_try(lambda: self._parts.turns.ids_left(turn.id))
        return ids if ids is not None and len(ids) == turn.stop - turn.start else None

    # -- the end --------------------------------------------------------------------------------------

    def _outcomes(
        self,
        turn: Turn | None,
        piece: Piece,
        exact: set[tuple[int, int]],
        *,
        text_kept: bool,
        planned: bool,
    ) -> list[RepairedRange]:
        """What becomes of a broken piece, page by page, like neighbours joined."""
        aside = any(one == piece for one in self._aside[piece.turn])
        if planned and turn is not None and (turn.forgotten or (text_kept and self._ways(turn))):
            aside = False
        found: list[RepairedRange] = []
        for page in page_range(piece.slot, piece.slot + piece.stop - piece.start):
            part = piece.cut(page * PAGE_SLOTS, (page + 1) * PAGE_SLOTS)
            assert part is not None
            same = (piece.segment, page) in exact or (turn is not None and turn.forgotten)
            outcome: Outcome = "set aside" if aside else "exact" if same else "encoded"
            start = found.pop().start if found and found[-1].outcome == outcome else part.start
            label = self._label(piece.segment)
            found.append(RepairedRange(piece.turn, start, part.stop, label, outcome, text_kept))
        return found

    def _drop_replaced(self, aside: Sequence[Piece]) -> None:
        """Drop the rows of pages and files that no token lies in any more."""
        slots = self._parts.slots
        kept = {
            (piece.segment, page)
            for piece in aside
            for page in page_range(piece.slot, piece.slot + piece.stop - piece.start)
        }
        for number in self._damage.flawed:
            if not any(segment == number for segment, _ in kept):
                slots.remove_segment(number)
        flawed = set(self._damage.flawed)
        for segment, page in self._damage.pages:
            gone = segment in flawed or (segment, page) in self._damage.wrong
            if gone and (segment, page) not in kept:
                slots.remove_pages(segment, [page])

    def _label(self, segment: int) -> str:
        if segment < 0:
            return "agent.db"  # where they lay was written there, and is lost
        path = self._parts.segments.path(segment)
        return f"{path.parent.name}/{path.name}"


def _at_second_try(read: Callable[[], Found]) -> Found | None:
    """What the index has, None where it is damaged; a disk that failed once is asked again.

    What is taken for lost is a hole beneath later turns, and these are then not what they were.
    """
    for _ in range(2):
        with suppress(DamagedError):
            return read()
    return None

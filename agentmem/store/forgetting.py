"""Forgetting: the K/V of chosen slots are overwritten with zeros, and stay that way after a kill.

The index first gets the checksums the pages *will* have and a list of slots to scrub, in the same
transaction that wipes the text; then the bytes are overwritten and given back to the file system, and
the list is cleared; then the index is rewritten without its free pages, and its write-ahead log emptied.
Doing any of it again is harmless, so an opening after a kill just finishes what is listed. A reader that
stands in a transaction keeps the log from being emptied: that stays listed, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress

from agentmem.errors import StoreError
from agentmem.store.collecting import remove_orphans
from agentmem.store.extents import merged
from agentmem.store.failures import typed
from agentmem.store.files import sync_file
from agentmem.store.pages import PageSums, page_range
from agentmem.store.parts import Standing, StoreParts
from agentmem.store.segment import SegmentSet
from agentmem.store.slot_rows import SlotRange, SlotRows
from agentmem.store.tensor_file import flaw_of
from agentmem.store.upkeep import Reason


class Eraser:
    """Forgets turns of one open agent, and finishes what an earlier opening began."""

    def __init__(self, parts: StoreParts) -> None:
        self._parts = parts
        self._delayed = False  # this opening left something for later

    @property
    def due(self) -> bool:
        """Whether deleted text still lies in the index's files."""
        return self._parts.upkeep.due()

    def forget(self, turn_ids: Sequence[int], at: Standing, reason: Reason | None) -> int:
        """See ``DiskStore.forget``."""
        parts = self._parts
        turns = [turn for turn in map(parts.turns.get, dict.fromkeys(turn_ids)) if not turn.forgotten]
        if not turns:
            return 0
        parts.index.require_whole()
        self.finish_begun()  # checksums that are still to come true must not be computed with
        ids = [turn.id for turn in turns]
        tokens = sum(turn.stop - turn.start for turn in turns)
        ranges = parts.slots.ranges(ids)
        with typed(parts.agent_id, "forgetting"):
            pages, aside = scrubbed_sums(parts.segments, ranges), self._set_aside(ids)
        for turn_id in ids:
            if turn_id in at.branch:
                parts.digests.truncate(parts.digests_kept(at.branch.parent_of(turn_id)))
        with parts.index.transaction():
            parts.turns.forget(ids)
            parts.state_rows.wipe([(turn.id, turn.start, turn.stop) for turn in turns], parts.turns.branch)
            parts.upkeep.drop_marks(ids)
            if reason is not None:
                parts.upkeep.add_audit(reason, ids, tokens)
            self.list_work([*ranges, *aside], pages)
            parts.renew_trail()
        parts.digests.settle()
        try:
            self.finish()
        finally:  # it is forgotten from here on, even if the disk fails before the bytes are overwritten
            at.renew()
        return tokens

    def _set_aside(self, turn_ids: Sequence[int]) -> list[SlotRange]:
        """Where damaged bytes of turns lie that were set aside, as far as their files can be written to."""
        segments, rows = self._parts.segments, self._parts.slots.set_aside()
        return [
            SlotRange(segment, slot, slot + stop - start)
            for turn, start, stop, segment, slot in rows
            if turn in turn_ids and flaw_of(segments.path(segment), segments.spec) is None
        ]

    def list_work(self, ranges: Sequence[SlotRange], pages: Sequence[tuple[int, PageSums]]) -> None:
        """Write down what ``finish`` shall do; within the transaction that makes it true."""
        self._parts.slots.set_pages(pages)
        self._parts.slots.add_scrubs(ranges)
        self._parts.upkeep.set_due(due=True)
        self._parts.store_digests()

    def finish(self) -> None:
        """Overwrite what is listed. Raises StoreError: the disk failed, and the list stays."""
        parts = self._parts
        try:
            scrub(parts.segments, parts.slots, parts.slots.scrubs())
            remove_orphans(parts.folder, parts.segments, parts.slots.segments())
            self._erase_tail()
            parts.digests.erase_beyond()
        except OSError as error:
            raise StoreError(
                f"agent {parts.agent_id!r}: forgotten K/V could not be overwritten yet ({error.strerror}). "
                "Look after the disk; the next opening finishes it."
            ) from error
        with parts.index.transaction():
            parts.slots.clear_scrubs()
        self.compact()

    def finish_begun(self) -> None:
        """At an opening: do what is listed. What only a reader or a full disk delays does not keep it from opening."""
        if self._parts.slots.scrubs():
            self.finish()
        elif self.due:
            with suppress(StoreError):
                self.compact()

    def finish_late(self) -> None:
        """At a closing: once more what a reader delayed. What still delays it stays listed."""
        if self._delayed:
            with suppress(StoreError):
                self.compact()

    def compact(self) -> None:
        """Rewrite the index without what was deleted; stays due while somebody reads it."""
        self._delayed = True
        if self._parts.index.compact():
            with self._parts.index.transaction():
                self._parts.upkeep.set_due(due=False)
            self._delayed = False

    def _erase_tail(self) -> None:
        """Turns that were dropped unfinished, or not remembered, lie behind the last token."""
        segments, tail = self._parts.segments, self._parts.slots.tail()
        if tail.slot and not segments.shared(tail.segment):
            writer = segments.writer(tail.segment)
            try:
                writer.free([(tail.slot, segments.capacity)])
                sync_file(writer.fd)
            finally:
                writer.close()


def scrubbed_sums(segments: SegmentSet, ranges: Iterable[SlotRange]) -> list[tuple[int, PageSums]]:
    """(segment, checksums) of every touched page as it will be once the ranges are zeros.

    Raises:
        DamagedError: a page that also holds other tokens is damaged.
    """
    changed = []
    for segment, slots in _by_segment(ranges).items():
        table = segments.get(segment).pages
        pages = sorted({page for start, stop in slots for page in page_range(start, stop)})
        changed += [(segment, table.sums_with_zeros(page, slots)) for page in pages]
    return changed


def scrub(segments: SegmentSet, slots: SlotRows, ranges: Sequence[SlotRange]) -> None:
    """Overwrite the ranges with zeros, on the medium, and free them. A file shared with a fork is copied first."""
    known = set(slots.segments())
    for segment, slot_ranges in _by_segment(ranges).items():
        gone = segment not in known  # its file is to be removed: overwritten first, unless a fork has it too
        if gone and (segments.shared(segment) or flaw_of(segments.path(segment), segments.spec) is not None):
            continue
        if not gone:
            segments.own(segment, slots.used(segment))
        writer = segments.writer(segment)
        try:
            writer.write_zeros(slot_ranges)
            sync_file(writer.fd)  # in the blocks where the bytes were, before the file lets go of them
            writer.free(slot_ranges)
            sync_file(writer.fd)
        finally:
            writer.close()
        segments.drop(segment)


def _by_segment(ranges: Iterable[SlotRange]) -> dict[int, list[tuple[int, int]]]:
    found: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for range_ in ranges:
        found[range_.segment].append((range_.start, range_.stop))
    return {segment: merged(slots) for segment, slots in found.items()}

"""Forgetting: the K/V of chosen slots are overwritten with zeros, and stay that way after a kill.

The index first gets the checksums the pages *will* have and a list of slots to scrub, in the same
transaction that wipes the text; then the bytes are overwritten and the list is cleared. Doing it
again is harmless, so an opening after a kill just finishes the list.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from agentmem.store.extents import merged
from agentmem.store.files import sync_file
from agentmem.store.pages import PageSums, page_range
from agentmem.store.segment import SegmentSet
from agentmem.store.slot_rows import SlotRange, SlotRows


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
    """Overwrite the ranges with zeros, on the medium. A file shared with a fork is copied first."""
    for segment, slot_ranges in _by_segment(ranges).items():
        segments.own(segment, slots.used(segment))
        writer = segments.writer(segment)
        try:
            writer.write_zeros(slot_ranges)
            sync_file(writer.fd)
        finally:
            writer.close()
        segments.drop(segment)


def _by_segment(ranges: Iterable[SlotRange]) -> dict[int, list[tuple[int, int]]]:
    found: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for range_ in ranges:
        found[range_.segment].append((range_.start, range_.stop))
    return {segment: merged(slots) for segment, slots in found.items()}

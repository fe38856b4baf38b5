"""Garbage collection: branches nobody stands on, segments nothing lies in, pages nobody reads.

Works on the index's rows and the segment files of one open store, under its lock. The index is
changed first, in one transaction; files are freed after it, so a kill in between only leaves work for
the next time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from agentmem.store.base import CollectReport
from agentmem.store.branch import Branch
from agentmem.store.extents import merged
from agentmem.store.failures import typed
from agentmem.store.files import allocated_bytes, folder_bytes, sync_folder
from agentmem.store.pages import PAGE_SLOTS, page_range
from agentmem.store.parts import StoreParts
from agentmem.store.segment import SegmentSet
from agentmem.store.slot_rows import SlotRange


def remove_orphans(folder: Path, segments: SegmentSet, known: Iterable[int]) -> tuple[int, int]:
    """Remove files in ``kv`` that the index does not name; returns (files, bytes)."""
    numbers = set(known)
    segments.keep_open(numbers)  # a map of a removed file would be taken for the next one of its name
    names = {segments.path(number).name for number in numbers}
    files = freed = 0
    with typed(segments.agent_id, "removing files of abandoned turns"):
        for path in sorted((folder / "kv").iterdir()):
            if path.name not in names:
                freed += allocated_bytes(path)
                path.unlink()
                files += 1
    return files, freed


def collect(parts: StoreParts, branch: Branch, *, prune: bool) -> CollectReport:
    """Free what no turn reaches; with ``prune`` first take away the turns that are not on the branch.

    Raises:
        DamagedError: a page that keeps some of its tokens is damaged; nothing was changed.
        StoreError: the disk failed; what could not be freed is left for the next time.
    """
    with typed(parts.segments.agent_id, "collecting"):
        return _collected(parts, branch, prune=prune)


def _collected(parts: StoreParts, branch: Branch, *, prune: bool) -> CollectReport:
    parts.index.require_whole()
    before = folder_bytes(parts.folder)
    gone = [turn for turn in parts.turns.all_ids() if turn not in branch] if prune else []
    freed = parts.slots.ranges(gone)
    if gone:
        with parts.index.transaction():
            parts.slots.remove_extents(gone)
            parts.turns.remove(gone)
            parts.renew_trail()
            trim(parts, sorted({range_.segment for range_ in freed}))
        parts.index.compact()
    aside = {
        segment for _, _, _, segment, _ in parts.slots.set_aside()
    }  # kept until a repair has replaced it
    empty = [n for n in parts.slots.segments() if not parts.slots.used(n) and n not in aside]
    if empty:
        with parts.index.transaction():
            trim(parts, empty)
    for segment, pages in _unread_pages(parts).items():
        if segment in aside and not parts.segments.path(segment).exists():
            continue
        parts.segments.free_pages(segment, pages)
    files, _ = remove_orphans(parts.folder, parts.segments, parts.slots.segments())
    sync_folder(parts.folder / "kv")
    tokens = sum(range_.stop - range_.start for range_ in freed)
    return CollectReport(len(gone), tokens, files, max(0, before - folder_bytes(parts.folder)))


def trim(parts: StoreParts, segments: list[int]) -> None:
    """Drop the rows of segments and pages that hold nothing now."""
    aside = [SlotRange(row[3], row[4], row[4] + row[2] - row[1]) for row in parts.slots.set_aside()]
    in_use = _slots_in_use([*parts.slots.all_ranges(), *((range_, False) for range_ in aside)])
    for segment in segments:
        if segment not in in_use:
            parts.slots.remove_segment(segment)
            continue
        table = parts.segments.get(segment).pages
        used = in_use[segment][-1][1]
        read = {page for start, stop in in_use[segment] for page in page_range(start, stop)}
        parts.slots.remove_pages(segment, [page for page in table.known_pages() if page not in read])
        last, filled = divmod(used - 1, PAGE_SLOTS)
        # the tail moved back into its page: what is beyond it will be written again
        if table.filled(last) > filled + 1:
            parts.slots.set_pages([(segment, table.sums_of(last, filled + 1))])
        parts.segments.drop(segment)


def _unread_pages(parts: StoreParts) -> dict[int, list[tuple[int, int]]]:
    """Ranges of whole pages that hold only slots of no turn (no checksums) or only forgotten ones (zeros)."""
    ranges = parts.slots.all_ranges()
    forgotten = _slots_in_use((range_, True) for range_, gone in ranges if gone)
    found = {}
    for segment in parts.slots.segments():
        summed = {page.page for page in parts.slots.pages(segment)}
        pages = set(range(parts.segments.capacity // PAGE_SLOTS)) - summed
        for start, stop in forgotten.get(segment, []):
            pages |= set(range(-(-start // PAGE_SLOTS), stop // PAGE_SLOTS))
        found[segment] = merged((page, page + 1) for page in pages)
    return found


def _slots_in_use(ranges: Iterable[tuple[SlotRange, bool]]) -> dict[int, list[tuple[int, int]]]:
    by_segment: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for range_, _ in ranges:
        by_segment[range_.segment].append((range_.start, range_.stop))
    return {segment: merged(found) for segment, found in by_segment.items()}

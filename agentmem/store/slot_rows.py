"""The index's rows about files: segments, extents, page checksums, digest checksums, scrubs.

Writing is done within a transaction of the index. Knows the tables; the bytes are elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agentmem.store.branch import Branch
from agentmem.store.digest_log import DigestState, DigestSums
from agentmem.store.extents import BranchMap, Extent, Tail, merged
from agentmem.store.index import Index
from agentmem.store.pages import PAGE_SLOTS, PageSums
from agentmem.store.schema import has_table


@dataclass(frozen=True)
class SlotRange:
    """Slots [start, stop) of a segment."""

    segment: int
    start: int
    stop: int


class SlotRows:
    """Reads and writes what the index knows of files."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._has_set_aside = has_table("set_aside", index.execute)

    def segments(self) -> list[int]:
        """Numbers of the segments there are."""
        return [number for (number,) in self._index.execute("SELECT id FROM sealed_segments ORDER BY id")]

    def extents(self, branch: Branch) -> list[Extent]:
        """Where the tokens of a branch lie, in order."""
        rows = self._index.execute(
            "SELECT turn, start, segment, slot, count FROM sealed_extents ORDER BY start"
        )
        return [Extent(*row[1:]) for row in rows if row[0] in branch]

    def mapped(self, branch: Branch) -> BranchMap:
        """Where a branch's tokens lie. Raises DamagedError when the index leaves a gap."""
        try:
            mapped = BranchMap(self.extents(branch))
        except ValueError as error:
            raise self._index.damage("table extents", str(error)) from error
        if mapped.length != branch.length:
            detail = f"{mapped.length} tokens are mapped, but the turns hold {branch.length}"
            raise self._index.damage("table extents", detail)
        return mapped

    def ranges(self, turn_ids: Iterable[int]) -> list[SlotRange]:
        """The slots of some turns, of any branch."""
        found = []
        for turn_id in turn_ids:
            rows = self._index.execute(
                "SELECT segment, slot, slot + count FROM sealed_extents WHERE turn = ?", (turn_id,)
            )
            found += [SlotRange(*row) for row in rows]
        return found

    def all_ranges(self) -> list[tuple[SlotRange, bool]]:
        """All slots in use, each with whether its turn was forgotten."""
        rows = self._index.execute(
            "SELECT e.segment, e.slot, e.slot + e.count, t.forgotten FROM sealed_extents e JOIN linked_turns t ON t.id = e.turn"
        )
        return [(SlotRange(*row[:3]), bool(row[3])) for row in rows]

    def live(self, segment: int) -> list[tuple[int, int]]:
        """Slot ranges of turns that were not forgotten: their bytes are in the file."""
        rows = self._index.execute(
            "SELECT slot, slot + count FROM sealed_extents "
            "WHERE segment = ? AND turn NOT IN (SELECT id FROM main.turns WHERE forgotten)",
            (segment,),
        )
        return merged(rows)

    def used(self, segment: int) -> int:
        """Slots up to the last one in use."""
        rows = self._index.execute(
            "SELECT slot + count FROM sealed_extents WHERE segment = ? ORDER BY slot DESC LIMIT 1", (segment,)
        )
        return int(rows[0][0]) if rows else 0

    def tail(self) -> Tail:
        """Where the next token goes: behind the newest segment's last slot, or into a new segment.

        What a checksum covers is never written over, even where no turn has it any more.
        """
        (number,) = self._index.row("SELECT next_segment FROM sealed_state")
        listed = {
            range_.segment for range_ in self.scrubs()
        }  # never beside slots that zeros are still to go to
        there = self._index.execute("SELECT 1 FROM sealed_segments WHERE id = ?", (number - 1,))
        if not there or number - 1 in listed:
            return Tail(number, 0)
        last = self._index.execute(
            "SELECT page, filled FROM sealed_pages WHERE segment = ? ORDER BY page DESC LIMIT 1",
            (number - 1,),
        )
        summed = max((page * PAGE_SLOTS + filled for page, filled in last), default=0)
        return Tail(number - 1, max(self.used(number - 1), summed))

    def pages(self, segment: int, first: int = 0, stop: int | None = None) -> list[PageSums]:
        """The checksums of a segment's pages, or of those of [first, stop), some of which may not be there."""
        if stop is not None:
            found = self._index.execute(
                "SELECT page, filled, sums FROM sealed_pages WHERE segment = ? AND page >= ? AND page < ?",
                (segment, first, stop),
            )
            return [PageSums(*row) for row in found]
        self._index.require_counted("pages")
        rows = self._index.execute(
            "SELECT page, filled, sums FROM sealed_pages WHERE segment = ? ORDER BY page", (segment,)
        )
        return [PageSums(*row) for row in rows]

    def add_extents(self, turn_id: int, extents: Sequence[Extent]) -> None:
        """Where a new turn's tokens lie; segments not seen before become known."""
        for extent in extents:
            self._index.execute("INSERT OR IGNORE INTO segments (id) VALUES (?)", (extent.segment,))
            self._index.execute("UPDATE state SET next_segment = max(next_segment, ?)", (extent.segment + 1,))
            self._index.execute(
                "INSERT INTO extents (turn, start, segment, slot, count) VALUES (?, ?, ?, ?, ?)",
                (turn_id, extent.start, extent.segment, extent.slot, extent.count),
            )

    def set_pages(self, pages: Iterable[tuple[int, PageSums]]) -> None:
        """New checksums of (segment, page)."""
        for segment, page in pages:
            self._index.execute(
                "INSERT OR REPLACE INTO pages (segment, page, filled, sums) VALUES (?, ?, ?, ?)",
                (segment, page.page, page.filled, page.sums),
            )

    def remove_pages(self, segment: int, pages: Iterable[int]) -> None:
        """Pages that hold nothing any more."""
        for page in pages:
            self._index.execute("DELETE FROM pages WHERE segment = ? AND page = ?", (segment, page))

    def remove_extents(self, turn_ids: Iterable[int]) -> None:
        """Free the slots of turns."""
        for turn_id in turn_ids:
            self._index.execute("DELETE FROM extents WHERE turn = ?", (turn_id,))

    def remove_segment(self, segment: int) -> None:
        """A segment that holds nothing any more."""
        self._index.execute("DELETE FROM pages WHERE segment = ?", (segment,))
        self._index.execute("DELETE FROM segments WHERE id = ?", (segment,))

    def digests(self) -> DigestState:
        """What was committed of the digests."""
        kind, count = self._index.row("SELECT digest_kind, digest_count FROM sealed_state")
        rows = self._index.execute("SELECT file, filled, sums FROM sealed_digest_files")
        return DigestState(kind, count, {row[0]: DigestSums(*row) for row in rows})

    def set_digests(self, kind: str | None, count: int, first: int, changed: Sequence[DigestSums]) -> None:
        """The digests as they now are; files before ``first`` are as they were."""
        self._index.execute("UPDATE state SET digest_kind = ?, digest_count = ?", (kind, count))
        self._index.execute("DELETE FROM digest_files WHERE file >= ?", (first,))
        for sums in changed:
            self._index.execute(
                "INSERT INTO digest_files (file, filled, sums) VALUES (?, ?, ?)",
                (sums.file, sums.filled, sums.sums),
            )

    def all_extents(self) -> list[tuple[int, Extent]]:
        """(turn, where some of its tokens lie) for all turns of all branches, turn by turn."""
        rows = self._index.execute(
            "SELECT turn, start, segment, slot, count FROM sealed_extents ORDER BY turn, start"
        )
        return [(row[0], Extent(*row[1:])) for row in rows]

    def turns_in(self, segment: int, first: int, last: int) -> list[int]:
        """Turns with tokens in slots [first, last) of a segment."""
        rows = self._index.execute(
            "SELECT DISTINCT turn FROM sealed_extents WHERE segment = ? AND slot < ? AND slot + count > ? ORDER BY turn",
            (segment, last, first),
        )
        return [turn for (turn,) in rows]

    def set_aside(self) -> list[tuple[int, int, int, int, int]]:
        """(turn, start, stop, segment, slot) of tokens set aside, with where their damaged bytes lie."""
        if not self._has_set_aside:
            return []
        rows = self._index.execute(
            "SELECT turn, start, stop, segment, slot FROM sealed_set_aside ORDER BY turn, start"
        )
        return [(row[0], row[1], row[2], row[3], row[4]) for row in rows]

    def put_aside(self, rows: Iterable[tuple[int, int, int, int, int]]) -> None:
        """Set exactly these aside: (turn, start, stop, segment, slot)."""
        self._index.execute("DELETE FROM set_aside")
        for row in rows:
            self._index.execute(
                "INSERT INTO set_aside (turn, start, stop, segment, slot) VALUES (?, ?, ?, ?, ?)", row
            )

    def next_segment(self) -> int:
        """A number that no segment ever had."""
        (number,) = self._index.row("SELECT next_segment FROM sealed_state")
        return int(number)

    def scrubs(self) -> list[SlotRange]:
        """Slots still to be overwritten with zeros."""
        rows = self._index.execute("SELECT segment, slot, slot + count FROM sealed_scrubs")
        return [SlotRange(*row) for row in rows]

    def add_scrubs(self, ranges: Iterable[SlotRange]) -> None:
        """Slots to be overwritten with zeros."""
        for range_ in ranges:
            self._index.execute(
                "INSERT INTO scrubs (segment, slot, count) VALUES (?, ?, ?)",
                (range_.segment, range_.start, range_.stop - range_.start),
            )

    def clear_scrubs(self) -> None:
        """All slots were overwritten."""
        self._index.execute("DELETE FROM scrubs")

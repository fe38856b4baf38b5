"""Finding damaged keys and values, page by page, and saying whose tokens they were.

A file of the wrong length, with a broken header or on a failing disk still gives up the pages that are whole.
Knows slots, pages and turns' ids; changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from agentmem.store.loose_segment import LooseSegment
from agentmem.store.pages import PAGE_SLOTS, PageSums
from agentmem.store.segment import SegmentSet
from agentmem.store.slot_rows import SlotRows

Condition = Literal["sound", "movable", "broken"]
"""Of a page's slots: good where they are; good, but in a file that cannot be used; not what was written."""


@dataclass(frozen=True)
class Piece:
    """Tokens [start, stop) of a turn, in slots of one segment from ``slot`` on."""

    turn: int
    start: int
    stop: int
    segment: int
    slot: int
    condition: Condition
    aside: bool = False
    """Whether the tokens were set aside: these are the slots that they had before."""

    def cut(self, first_slot: int, last_slot: int) -> Piece | None:
        """The part of it that lies in slots [first_slot, last_slot)."""
        low, high = max(self.slot, first_slot), min(self.slot + self.stop - self.start, last_slot)
        if low >= high:
            return None
        start = self.start + low - self.slot
        return Piece(self.turn, start, start + high - low, self.segment, low, self.condition, self.aside)


class Damage:
    """Every committed page of an agent, checked once.

    Args:
        slots: what the index knows of files.
        segments: where they lie.

    Raises:
        OSError: a file cannot be opened for a reason that says nothing of it.
    """

    def __init__(self, slots: SlotRows, segments: SegmentSet) -> None:
        self._slots = slots
        self._segments = segments
        self.files: dict[int, LooseSegment] = {}
        self.pages: dict[tuple[int, int], PageSums] = {}
        self.wrong: dict[tuple[int, int], frozenset[tuple[int, int]]] = {}
        try:
            for number in slots.segments():
                self.files[number] = segments.loose(number)
                self._check(number)
        except BaseException:
            self.close()
            raise

    @cached_property
    def by_turn(self) -> Mapping[int, Sequence[Piece]]:
        """All pieces of each turn that has one which is not sound; what was set aside is looked for where it lay."""
        aside: dict[int, list[tuple[int, int, int, int]]] = defaultdict(list)
        for turn, start, stop, segment, slot in self._slots.set_aside():
            aside[turn].append((start, stop, segment, slot))
        found: dict[int, Sequence[Piece]] = {}
        for turn, rows in self._rows_by_turn().items():
            pieces = [piece for row in rows for piece in self._pieces(turn, row, aside[turn])]
            pieces += [piece for row in aside[turn] for piece in self._cut(turn, *row, aside=True)]
            if any(piece.condition != "sound" for piece in pieces):
                found[turn] = sorted(pieces, key=lambda piece: piece.start)
        return found

    @property
    def flawed(self) -> list[int]:
        """Segments whose file is missing, or has another length or header than it was made with."""
        return [number for number, file in self.files.items() if file.flawed]

    def close(self) -> None:
        """Close all files."""
        for file in self.files.values():
            file.close()

    def _check(self, number: int) -> None:
        for page in self._slots.pages(number):
            self.pages[number, page.page] = page
            wrong = self.files[number].wrong_columns(page)
            if wrong:
                self.wrong[number, page.page] = frozenset(wrong)

    def _rows_by_turn(self) -> dict[int, list[tuple[int, int, int, int]]]:
        rows: dict[int, list[tuple[int, int, int, int]]] = defaultdict(list)
        for turn, extent in self._slots.all_extents():
            rows[turn].append((extent.start, extent.stop, extent.segment, extent.slot))
        return rows

    def _pieces(
        self, turn: int, row: tuple[int, int, int, int], aside: Iterable[tuple[int, int, int, int]]
    ) -> list[Piece]:
        """The pieces of an extent, without the tokens that were set aside: those lie elsewhere."""
        start, stop, segment, slot = row
        pieces, token = [], start
        for low, high, *_ in sorted(gap for gap in aside if gap[0] < stop and gap[1] > start):
            pieces += self._cut(turn, token, max(token, low), segment, slot + token - start)
            token = max(token, high)
        return pieces + self._cut(turn, token, max(token, stop), segment, slot + token - start)

    def _cut(
        self, turn: int, start: int, stop: int, segment: int, slot: int, *, aside: bool = False
    ) -> list[Piece]:
        """Tokens [start, stop) in runs of one condition; those set aside must be moved in any case."""
        pieces: list[Piece] = []
        while start < stop:
            page = slot // PAGE_SLOTS
            count = min(stop - start, (page + 1) * PAGE_SLOTS - slot)
            condition = self._condition(segment, page, slot + count - page * PAGE_SLOTS)
            if aside and condition == "sound":
                condition = "movable"
            last = pieces[-1] if pieces else None
            if last is not None and last.condition == condition:
                pieces[-1] = Piece(turn, last.start, start + count, segment, last.slot, condition, aside)
            else:
                pieces.append(Piece(turn, start, start + count, segment, slot, condition, aside))
            start, slot = start + count, slot + count
        return pieces

    def _condition(self, segment: int, page: int, filled: int) -> Condition:
        sums, file = self.pages.get((segment, page)), self.files.get(segment)
        if sums is None or file is None or sums.filled < filled or (segment, page) in self.wrong:
            return "broken"
        return "movable" if file.flawed else "sound"

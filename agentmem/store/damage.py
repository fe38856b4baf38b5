"""Finding damaged keys and values, page by page, and saying whose tokens they were.

Reads with plain reads, never through a map: a file of the wrong length, with a broken header or on a failing
disk still gives up the pages that are whole. Knows slots, pages and turns' ids; changes nothing.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from agentmem.store.files import read_all
from agentmem.store.pages import PAGE_SLOTS, PageSums
from agentmem.store.segment import SegmentSet
from agentmem.store.slot_rows import SlotRows
from agentmem.store.tensor_file import TensorFileSpec, flaw_of

Condition = Literal["sound", "movable", "broken"]
"""Of a page's slots: good where they are; good, but in a file that cannot be used; not what was written."""

_SUM = np.dtype("<u8")


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


class LooseSegment:
    """A segment file, read whatever its length and header are. Bytes that cannot be had are missing."""

    def __init__(self, path: Path, spec: TensorFileSpec) -> None:
        self.spec = spec
        self.flawed = flaw_of(path, spec) is not None
        self._columns = [
            (tensor, head) for tensor, (heads, _) in enumerate(spec.shapes) for head in range(heads)
        ]
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            self._fd = -1

    def rows(self, tensor: int, head: int, slot: int, stop: int) -> bytes:
        """The bytes of one head's slots [slot, stop); fewer where the file ends or the disk fails."""
        if self._fd < 0:
            return b""
        size = self.spec.shapes[tensor][1] * self.spec.dtype.itemsize
        try:
            return read_all(self._fd, (stop - slot) * size, self.spec.offset(tensor, head, slot))
        except OSError:
            return b""

    def wrong_columns(self, page: PageSums) -> list[tuple[int, int]]:
        """(tensor, head) of every column of a page that is not what was written."""
        first = page.page * PAGE_SLOTS
        sums = np.frombuffer(page.sums, dtype=_SUM).tolist()
        return [
            column
            for column, expected in zip(self._columns, sums, strict=True)
            if xxh3_64_intdigest(self.rows(*column, first, first + page.filled)) != expected
        ]

    def sums_of(self, page: PageSums) -> Mapping[tuple[int, int], int]:
        """The checksums a page was committed with, by (tensor, head)."""
        return dict(zip(self._columns, np.frombuffer(page.sums, dtype=_SUM).tolist(), strict=True))

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Damage:
    """Every committed page of an agent, checked once.

    Args:
        slots: what the index knows of files.
        segments: where they lie.
    """

    def __init__(self, slots: SlotRows, segments: SegmentSet) -> None:
        self._slots = slots
        self._segments = segments
        self.files: dict[int, LooseSegment] = {}
        self.pages: dict[tuple[int, int], PageSums] = {}
        self.wrong: dict[tuple[int, int], frozenset[tuple[int, int]]] = {}
        for number in slots.segments():
            file = self.files[number] = LooseSegment(segments.path(number), segments.spec)
            for page in slots.pages(number):
                self.pages[number, page.page] = page
                wrong = file.wrong_columns(page)
                if wrong:
                    self.wrong[number, page.page] = frozenset(wrong)

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


def raw_rows(file: LooseSegment, tensor: int, slot: int, stop: int) -> NDArray[np.uint8]:
    """The bytes of all heads' slots [slot, stop) of a tensor whose pages are whole: (Hkv, stop - slot, bytes)."""
    heads = file.spec.shapes[tensor][0]
    data = b"".join(file.rows(tensor, head, slot, stop) for head in range(heads))
    return np.frombuffer(data, dtype=np.uint8).reshape(heads, stop - slot, -1)

"""Checksums of one segment's rows: pages of 32 slots, one xxh3-64 per (layer, keys|values, KV head).

A page is checked once per turn, before its bytes are handed out, column by column: only what is read is
checked, and what was changed in the file since is noticed by the next turn. The last page is *open*: its sums cover
its first ``filled`` slots and are renewed at each commit. Slots beyond ``filled`` belong to no finished turn and are
not checked. A page is *whole* when each of its filled slots is known to be in the file; it is read through the map.
Any other page may have holes, where a map can end the process (a tmpfs without a free page), and is read with pread.
Knows nothing of turns or SQLite.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from agentmem.errors import DamagedError
from agentmem.store.cipher import Bytes
from agentmem.store.tensor_file import TensorFile

PAGE_SLOTS = 32

_SUM = np.dtype("<u8")


@dataclass(frozen=True)
class PageSums:
    """The checksums of one page: ``sums`` holds a little-endian u64 per tensor and head, in file order."""

    page: int
    filled: int
    sums: bytes


def page_range(start: int, stop: int) -> range:
    """The pages that slots [start, stop) touch."""
    return range(start // PAGE_SLOTS, -(-stop // PAGE_SLOTS))


class PageTable:
    """The pages of one open segment: what their bytes must hash to, and which were checked already.

    Args:
        file: the open file.
        pages: the checksums that the index has.
        live: slot ranges [start, stop) whose bytes are in the file, and stay there while it is open.
    """

    def __init__(
        self, file: TensorFile, pages: Iterable[PageSums], live: Iterable[tuple[int, int]] = ()
    ) -> None:
        self._file = file
        count = file.spec.capacity // PAGE_SLOTS
        heads = [heads for heads, _ in file.spec.shapes]
        self._columns = np.concatenate(([0], np.cumsum(heads))).tolist()
        # by cell, head * pages + page: the same order as a file's rows, 32 to a cell
        self._sums = np.zeros((self._columns[-1], count), dtype=_SUM)
        self._expected = [self._sums[low:high].reshape(-1).data for low, high in pairwise(self._columns)]
        self._filled_of_cells = np.zeros((max(heads), count), dtype=np.int64)
        self._filled = self._filled_of_cells[0]
        self._unchecked = [np.zeros(n * count, dtype=np.bool_) for n in heads]
        self._flags = [unchecked.data for unchecked in self._unchecked]  # the same, for single looks
        self._passed: list[tuple[int, list[int]]] = []  # (tensor, cells) since the last ``distrust``
        self._renewed: list[NDArray[np.int64]] = []  # and pages
        self.bytes_checked = 0
        self._set(pages, checked=False)
        self._whole = _covered(self._filled, live)  # a page that is begun later holds nothing but new rows
        self._all_whole = bool(self._whole.all())

    def filled(self, page: int) -> int:
        """Slots of a page that belong to finished turns."""
        return int(self._filled[page])

    def due(self, tensor: int, cells: Iterable[int]) -> list[int]:
        """Those pages of single heads (head * pages + page) whose bytes have yet to be looked at."""
        unchecked = self._flags[tensor]
        return [cell for cell in cells if unchecked[cell]]

    def check_cells(self, tensor: int, cells: Iterable[int]) -> None:
        """Check pages of single heads (head * pages + page), some of them perhaps named twice. Raises DamagedError."""
        due = self.due(tensor, cells)
        if due:
            self._check(tensor, due)

    def check_slots(self, tensor: int, start: int, stop: int) -> None:
        """Check the pages of slots [start, stop), all heads. Raises DamagedError."""
        heads = self._file.spec.shapes[tensor][0]
        pages = page_range(start, stop)
        due = self._unchecked[tensor].reshape(heads, -1)[:, pages.start : pages.stop]
        if due.any():
            head, page = due.nonzero()
            self._check(tensor, (head * len(self._filled) + page + pages.start).tolist())

    def whole_rows(self, rows: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Which rows (head * capacity + slot) lie in whole pages, in the shape of ``rows``; None: all of them."""
        if self._all_whole:
            return None
        whole = np.take(self._whole, rows >> 5, mode="wrap")  # a head's pages follow the one's before
        return None if whole.all() else whole

    def whole_runs(self, rows: NDArray[np.int64], width: int) -> bool:
        """Whether rows (head * capacity + slot) begin runs of ``width``, cut off evenly, and all pages are whole."""
        return self._all_whole and not bool((rows & (width - 1)).any())

    def whole_slots(self, start: int, stop: int) -> bool:
        """Whether slots [start, stop) lie in whole pages."""
        pages = page_range(start, stop)
        return self._all_whole or bool(self._whole[pages.start : pages.stop].all())

    def stop_mapping(self) -> None:
        """From now on somebody else may punch holes anywhere: everything is read."""
        self._whole[:] = False
        self._all_whole = False

    def check_page(self, page: int) -> None:
        """Check every column of a page that was not checked yet. Raises DamagedError."""
        for tensor, unchecked in enumerate(self._flags):
            self.check_cells(tensor, range(page, len(unchecked), len(self._filled)))

    def sums_of(self, page: int, filled: int) -> PageSums:
        """Checksums of a page's first ``filled`` slots as they are now, its older part checked first."""
        if self._filled[page]:
            self.check_page(page)
        start = page * PAGE_SLOTS
        read = self._file.bytes_of if self._whole[page] else self._file.stored_bytes
        sums = [
            xxh3_64_intdigest(read(tensor, head, start, start + filled))
            for tensor, (heads, _) in enumerate(self._file.spec.shapes)
            for head in range(heads)
        ]
        return PageSums(page, filled, np.array(sums, dtype=_SUM).tobytes())

    def sums_with_zeros(self, page: int, slots: Iterable[tuple[int, int]]) -> PageSums:
        """Checksums a page will have once its slots within these ranges are zeros; what stays is checked."""
        first, filled = page * PAGE_SLOTS, self.filled(page)
        cut = [(max(start - first, 0), min(stop - first, filled)) for start, stop in slots]
        ranges = [(start, stop) for start, stop in cut if start < stop]
        if ranges != [(0, filled)]:
            self.check_page(page)
        sums = []
        for tensor, (heads, dim) in enumerate(self._file.spec.shapes):
            row = dim * self._file.spec.dtype.itemsize
            for head in range(heads):
                data = bytearray(self._file.stored_bytes(tensor, head, first, first + filled))
                for start, stop in ranges:
                    data[start * row : stop * row] = bytes((stop - start) * row)
                sums.append(xxh3_64_intdigest(data))
        return PageSums(page, filled, np.array(sums, dtype=_SUM).tobytes())

    def renew(self, pages: Iterable[PageSums]) -> None:
        """Take over checksums that were just computed from the bytes themselves."""
        self._set(pages, checked=True)

    def distrust(self) -> None:
        """A turn begins: what was checked before may have been changed since, so it is checked again."""
        for tensor, cells in self._passed:
            self._unchecked[tensor][cells] = True
        for pages in self._renewed:
            for unchecked in self._unchecked:
                unchecked.reshape(-1, len(self._filled))[:, pages] = True
        self._passed, self._renewed = [], []

    def wrong_columns(self, page: int) -> list[str]:
        """Names of a page's columns whose bytes are not what was written, whether checked before or not."""
        return [
            f"{self._file.spec.names[tensor]}[{head}]"
            for tensor, (heads, _) in enumerate(self._file.spec.shapes)
            for head in range(heads)
            if not self._matches(tensor, head, page)
        ]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def known_pages(self) -> list[int]:
        """The pages that have checksums."""
        return [int(page) for page in np.flatnonzero(self._filled)]

    def _set(self, pages: Iterable[PageSums], *, checked: bool) -> None:
        """Take over checksums, all at once: a long memory has thousands of pages."""
        numbers = self._note(list(pages))
        for unchecked in self._unchecked:
            unchecked.reshape(-1, len(self._filled))[:, numbers] = not checked
        if checked:
            self._renewed.append(numbers)

    def _note(self, new: Sequence[PageSums]) -> NDArray[np.int64]:
        """Note checksums, and nothing of whether they were compared; returns the pages' numbers."""
        numbers = np.array([page.page for page in new], dtype=np.int64)
        sums = np.frombuffer(b"".join(page.sums for page in new), dtype=_SUM)
        self._sums[:, numbers] = sums.reshape(len(new), self._columns[-1]).T
        self._filled_of_cells[:, numbers] = [page.filled for page in new]
        return numbers

    def _matches(self, tensor: int, head: int, page: int) -> bool:
        start = page * PAGE_SLOTS
        data = self._file.stored_bytes(tensor, head, start, start + int(self._filled[page]))
        self.bytes_checked += len(data)
        return bool(xxh3_64_intdigest(data) == int(self._sums[self._columns[tensor] + head, page]))

    def _check(self, tensor: int, cells: Sequence[int]) -> None:
        """Check cells (head * pages + page) of one tensor; the first wrong one is named."""
        self._file.check_size()
        wrong = self._wrong_cells(tensor, cells)
        if wrong:
            raise self._wrong(tensor, *divmod(wrong[0], len(self._filled)))
        self._unchecked[tensor][cells] = False
        self._passed.append((tensor, list(cells)))
        filled = self._filled_of_cells.reshape(-1).data
        self.bytes_checked += sum([filled[cell] for cell in cells]) * self._file.row_bytes(tensor)

    def _wrong_cells(self, tensor: int, cells: Sequence[int]) -> list[int]:
        """Those whose bytes are not what was written.

        A few cells at a time, from many segments: what numpy costs a call is more than what is done here for a cell.
        """
        row, filled = self._file.row_bytes(tensor), self._filled_of_cells.reshape(-1).data
        expected, frame = self._expected[tensor], PAGE_SLOTS * row
        if self._all_whole:
            rows = self._file.tensor_bytes(tensor)
            return [
                cell
                for cell in cells
                if xxh3_64_intdigest(rows[cell * frame : cell * frame + filled[cell] * row]) != expected[cell]
            ]
        return [cell for cell in cells if xxh3_64_intdigest(self._bytes(tensor, cell)) != expected[cell]]

    def _bytes(self, tensor: int, cell: int) -> Bytes:
        """The bytes of a cell, through the map only if none of them is a hole."""
        head, page = divmod(cell, len(self._filled))
        read = self._file.bytes_of if self._whole[page] else self._file.stored_bytes
        return read(tensor, head, page * PAGE_SLOTS, page * PAGE_SLOTS + int(self._filled[page]))

    def _wrong(self, tensor: int, head: int, page: int) -> DamagedError:
        first = page * PAGE_SLOTS
        return self._file.damaged(
            f"slots {first} to {first + self.filled(page)} of {self._file.spec.names[tensor]}[{head}]",
            "the checksum differs",
        )


def _covered(filled: NDArray[np.int64], live: Iterable[tuple[int, int]]) -> NDArray[np.bool_]:
    """Of each page, whether all of its filled slots lie in ``live``."""
    there = np.zeros((len(filled), PAGE_SLOTS), dtype=np.bool_)
    slots = there.reshape(-1)
    for start, stop in live:
        slots[start:stop] = True
    there |= np.arange(PAGE_SLOTS) >= filled[:, None]
    whole: NDArray[np.bool_] = np.logical_and.reduce(there, axis=1)
    return whole

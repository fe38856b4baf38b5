"""Segments of an agent that is written to: the checksums of a page are fetched when it is first read.

A long memory has thousands of pages in hundreds of segments, and a turn reads few of them. A page that should have
checksums, and has none in the index, is damage; what an open turn writes has none yet. Knows slots and pages; nothing
of turns or SQLite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from agentmem.store.pages import PAGE_SLOTS, PageSums, PageTable
from agentmem.store.segment import Segment, SegmentSet
from agentmem.store.tensor_file import TensorFile

NEAR = 64
"""Pages that lie closer than this are fetched together with what lies between: a query costs as much as twenty rows."""

FindPages = Callable[[int, int], Iterable[PageSums]]
"""The checksums that the index has of pages [first, stop)."""


class PagesOnDemand(PageTable):
    """The pages of one open segment; see :class:`PageTable`.

    Args:
        file: the open file.
        find: fetches checksums.
        live: slot ranges [start, stop) whose bytes are in the file, and stay there while it is open.
    """

    def __init__(self, file: TensorFile, find: FindPages, live: Sequence[tuple[int, int]]) -> None:
        super().__init__(file, (), live)
        self._find = find
        self._known = np.zeros(len(self._filled), dtype=np.bool_)  # fetched, or begun by an open turn
        for unchecked in self._unchecked:
            unchecked[:] = True
        self._there = np.zeros((len(self._filled), PAGE_SLOTS), dtype=np.bool_)
        for start, stop in live:
            self._there.reshape(-1)[start:stop] = True

    def filled(self, page: int) -> int:
        """Slots of a page that belong to finished turns. Raises DamagedError."""
        self._fetch(np.array([page]))
        return super().filled(page)

    def begin(self, slot: int) -> None:
        """Nothing committed lies at this slot or behind it: pages that start there have no checksums yet."""
        first = -(-slot // PAGE_SLOTS)
        new = np.flatnonzero(~self._known[first:]) + first
        self._known[new] = True
        self._whole[new] = True
        for unchecked in self._unchecked:
            unchecked.reshape(-1, len(self._known))[:, new] = False

    def sums_of(self, page: int, filled: int) -> PageSums:
        """Checksums of a page's first ``filled`` slots as they are now, its older part checked first."""
        self._fetch(np.array([page]))
        return super().sums_of(page, filled)

    def sums_with_zeros(self, page: int, slots: Iterable[tuple[int, int]]) -> PageSums:
        """Checksums a page will have once its slots within these ranges are zeros; what stays is checked."""
        self._fetch(np.array([page]))
        return super().sums_with_zeros(page, slots)

    def known_pages(self) -> list[int]:
        """The pages that have checksums."""
        self._take(self._find(0, len(self._known)), fresh=~self._known)
        return super().known_pages()

    def renew(self, pages: Iterable[PageSums]) -> None:
        """Take over checksums that were just computed from the bytes themselves."""
        new = list(pages)
        super().renew(new)
        self._known[[page.page for page in new]] = True

    def _wrong_cells(self, tensor: int, cells: Sequence[int]) -> list[int]:
        """Those whose bytes are not what was written; one whose checksum is not fetched yet looks so at first."""
        wrong = super()._wrong_cells(tensor, cells)
        if not wrong:
            return wrong
        self._fetch(np.array(wrong) % len(self._known))
        return super()._wrong_cells(tensor, wrong)

    def _fetch(self, pages: NDArray[np.int64]) -> None:
        """Fetch the checksums of pages that are not known yet, neighbourhood by neighbourhood. Raises DamagedError."""
        if self._known[pages].all():
            return
        missing = np.zeros(len(self._known), dtype=np.bool_)
        missing[pages] = True
        missing &= ~self._known
        numbers = np.flatnonzero(missing)
        cuts = (np.flatnonzero(np.diff(numbers) > NEAR) + 1).tolist()
        for first, last in zip([0, *cuts], [*cuts, len(numbers)], strict=True):
            start, stop = int(numbers[first]), int(numbers[last - 1]) + 1
            self._take(self._find(start, stop), fresh=~self._known)
        if not self._known[pages].all():
            page = int(np.flatnonzero(missing & ~self._known)[0])
            where = f"slots {page * PAGE_SLOTS} to {(page + 1) * PAGE_SLOTS}"
            raise self._file.damaged(where, "the index has no checksums for them")

    def _take(self, found: Iterable[PageSums], fresh: NDArray[np.bool_]) -> None:
        """Take over those of ``fresh`` pages."""
        pages = [page for page in found if 0 <= page.page < len(fresh) and fresh[page.page]]
        if not pages:
            return
        numbers = self._note(pages)  # they are unchecked from birth
        self._known[numbers] = True
        there = self._there[numbers] | (np.arange(PAGE_SLOTS) >= self._filled[numbers, None])
        self._whole[numbers] = there.all(axis=1)
        self._all_whole = bool(self._whole.all())  # of what was fetched: nothing else is read


class SegmentsOnDemand(SegmentSet):
    """The segments of an agent that is written to; see :class:`SegmentSet`."""

    def begin(self, number: int, slot: int) -> None:
        """An open turn writes from this slot on."""
        pages = self.get(number).pages
        assert isinstance(pages, PagesOnDemand)
        pages.begin(slot)

    def _opened(self, number: int) -> Segment:
        file = TensorFile(self.path(number), self.spec, self.agent_id)
        pages = PagesOnDemand(
            file, lambda first, stop: self._load_pages(number, first, stop), self._load_live(number)
        )
        return Segment(file, pages)

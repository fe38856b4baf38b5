"""New slots for tokens whose old ones are damaged: filled and synced before the index knows of them.

They lie in segments that were never used, behind everything committed, so nothing old is altered; if the
repair fails or is killed, the files are removed as what no turn names. Knows no turns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agentmem.errors import StoreError
from agentmem.memory.source import KVLayout
from agentmem.store.damage import Piece
from agentmem.store.extents import BranchMap, Extent, Tail
from agentmem.store.log import DiskTokenLog
from agentmem.store.loose_segment import LooseSegment
from agentmem.store.pages import PageSums
from agentmem.store.segment import SegmentSet

_ROWS_AT_ONCE = 1024


class Staging:
    """Fills slots from segment ``first`` on. ``pages`` are the checksums of all that was kept."""

    def __init__(self, layout: KVLayout, segments: SegmentSet, first: int) -> None:
        self.layout = layout
        self.segments = segments
        self.pages: dict[tuple[int, int], PageSums] = {}
        self._tail = Tail(first, 0)

    def log(self, branch: BranchMap, dead: Sequence[tuple[int, int]] = ()) -> DiskTokenLog:
        """A log that stands at the end of a branch, with a turn open; to be kept, or aborted."""
        log = DiskTokenLog(self.layout, self.segments, branch, self._tail, dead)
        log.begin()
        return log

    def keep(self, log: DiskTokenLog) -> list[Extent]:
        """Sync what was appended to a log, and say where it lies. Raises StoreError."""
        try:
            log.sync()
        except OSError as error:
            raise StoreError(
                f"repaired K/V could not be synced ({error.strerror}); nothing was changed. Look after the disk, "
                "and repair again."
            ) from error
        extents, pages = log.new_extents(), log.new_pages()
        log.settle(pages)
        for segment, page in pages:
            self.pages[segment, page.page] = page
        if extents:
            self._tail = Tail(extents[-1].segment, extents[-1].slot + extents[-1].count)
        return extents

    def copy(self, file: LooseSegment, piece: Piece) -> list[Extent]:
        """Take whole pages of an old file over; positions count as in the piece."""
        log = self.log(BranchMap())
        for low in range(0, piece.stop - piece.start, _ROWS_AT_ONCE):
            high = min(low + _ROWS_AT_ONCE, piece.stop - piece.start)
            rows = [
                self._tensor(file.all_rows(tensor, piece.slot + low, piece.slot + high), tensor, file)
                for tensor in range(len(file.spec.shapes))
            ]
            log.append(rows[0::2], rows[1::2])
        return _moved(self.keep(log), piece.start)

    def zeros(self, start: int, stop: int) -> list[Extent]:
        """Slots of zeros for tokens [start, stop)."""
        log = self.log(BranchMap())
        for low in range(start, stop, _ROWS_AT_ONCE):
            count = min(_ROWS_AT_ONCE, stop - low)
            rows = [
                torch.zeros(heads, count, dim, dtype=self.layout.dtype) for heads, dim in self.layout.layers
            ]
            log.append(rows, rows)
        return _moved(self.keep(log), start)

    def _tensor(self, rows: NDArray[np.uint8], tensor: int, file: LooseSegment) -> Tensor:
        heads, dim = file.spec.shapes[tensor]
        return torch.from_numpy(rows.copy()).view(self.layout.dtype).view(heads, -1, dim)


def _moved(extents: Sequence[Extent], start: int) -> list[Extent]:
    """Extents that begin at token 0, for tokens from ``start`` on."""
    return [Extent(start + one.start, one.segment, one.slot, one.count) for one in extents]

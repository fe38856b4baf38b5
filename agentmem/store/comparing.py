"""Whether keys and values that were computed anew are those that were committed, bit for bit.

Two witnesses: the columns of the old pages that are still whole, byte by byte, and the checksums (of an encrypted
agent: the authentication tags) that the damaged ones were committed with. Knows bytes, pages and slots; no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from agentmem.memory.source import TokenLog
from agentmem.store.damage import Damage, Piece
from agentmem.store.extents import Extent
from agentmem.store.loose_segment import LooseSegment
from agentmem.store.pages import PAGE_SLOTS, page_range
from agentmem.store.segment import SegmentSet
from agentmem.store.tensor_file import RawArray, raw_array


def agrees(damage: Damage, pieces: Sequence[Piece], log: TokenLog) -> bool:
    """Whether what a log holds for a turn equals whatever is left of it. True where nothing is left."""
    for piece in pieces:
        file = damage.files.get(piece.segment)
        if file is None:  # nobody knows where the old ones lie
            continue
        for layer in range(len(log.layout.layers)):
            heads, dim = log.layout.layers[layer]
            pair = [torch.empty(heads, piece.stop - piece.start, dim, dtype=log.layout.dtype) for _ in "kv"]
            log.read(layer, piece.start, piece.stop, *pair)
            for part, tensor in enumerate(pair):
                rows = raw_array(tensor).view(np.uint8)
                if not _same(damage, piece, file, 2 * layer + part, rows):
                    return False
    return True


def proven(
    damage: Damage, placed: Mapping[int, Sequence[tuple[Piece, Sequence[Extent]]]], segments: SegmentSet
) -> set[tuple[int, int]]:
    """The damaged pages whose tokens, where they lie now, hash to what was committed.

    Args:
        placed: by old segment, its pieces that were replaced, and where their tokens lie now.
    """
    return {
        (segment, page)
        for segment, page in damage.wrong
        if _page_proven(damage, segment, page, placed.get(segment, ()), segments)
    }


def _same(damage: Damage, piece: Piece, file: LooseSegment, tensor: int, rows: NDArray[np.uint8]) -> bool:
    """Whether new rows (Hkv, n, bytes) are the old ones, as far as the old ones are whole."""
    if piece.condition != "broken":
        return bool(np.array_equal(file.all_rows(tensor, piece.slot, piece.slot + rows.shape[1]), rows))
    for page in page_range(piece.slot, piece.slot + rows.shape[1]):
        first = page * PAGE_SLOTS
        part = piece.cut(first, first + PAGE_SLOTS)
        sums = damage.pages.get((piece.segment, page))
        if part is None or sums is None or part.slot + part.stop - part.start > first + sums.filled:
            continue  # nothing says what was written there
        wrong = damage.wrong.get((piece.segment, page), frozenset())
        whole = part.stop - part.start == sums.filled  # the page is all this turn's: its checksum can tell
        low, high = part.start - piece.start, part.stop - piece.start
        for head in range(rows.shape[0]):
            new = rows[head, low:high].tobytes()
            if (tensor, head) not in wrong:
                same = file.rows(tensor, head, part.slot, part.slot + high - low) == new
            else:
                same = not whole or file.fits(sums, tensor, head, new)
            if not same:
                return False
    return True


def _page_proven(
    damage: Damage,
    segment: int,
    page: int,
    placed: Sequence[tuple[Piece, Sequence[Extent]]],
    segments: SegmentSet,
) -> bool:
    sums, file = damage.pages[segment, page], damage.files[segment]
    first = page * PAGE_SLOTS
    parts = [
        (part, extents)
        for piece, extents in placed
        if (part := piece.cut(first, first + sums.filled)) is not None
    ]
    runs = [run for part, extents in sorted(parts, key=_by_slot) for run in _runs(part, extents)]
    if sum(count for _, _, count in runs) != sums.filled:
        return False  # it also held slots of no turn
    for tensor in range(len(file.spec.shapes)):
        rows = _rows_of(tensor, runs, segments)
        if not all(file.fits(sums, tensor, head, own.tobytes()) for head, own in enumerate(rows)):
            return False
    return True


def _rows_of(tensor: int, runs: Sequence[tuple[int, int, int]], segments: SegmentSet) -> RawArray:
    """The rows of (segment, slot, count), joined: (Hkv, slots, D)."""
    heads, dim = segments.spec.shapes[tensor]
    raw = raw_array(torch.empty(0, dtype=segments.spec.dtype)).dtype
    found = np.empty((heads, sum(count for _, _, count in runs), dim), dtype=raw)
    done = 0
    for number, slot, count in runs:
        segments.get(number).read(tensor, slot, found[:, done : done + count])
        done += count
    return found


def _by_slot(part: tuple[Piece, Sequence[Extent]]) -> int:
    return part[0].slot


def _runs(piece: Piece, extents: Sequence[Extent]) -> list[tuple[int, int, int]]:
    """(segment, slot, count) of where a piece's tokens lie now, in order."""
    runs = []
    for one in extents:
        low, high = max(piece.start, one.start), min(piece.stop, one.stop)
        if low < high:
            runs.append((one.segment, one.slot + low - one.start, high - low))
    return runs

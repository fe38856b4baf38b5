"""The token log on segments: raw keys and values by token position.

Knows the current branch's map, the tail where new tokens go, and the open turn, whose tokens lie in
the same files beyond what is committed. Knows nothing of turns' text or SQLite: the store tells it
what was committed, and asks it what to commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from agentmem.errors import InputError, ShapeError, StoreError
from agentmem.memory.source import KVLayout
from agentmem.store.extents import BranchMap, Extent, Tail
from agentmem.store.files import sync_file, sync_folder
from agentmem.store.gathering import plan_gather
from agentmem.store.pages import PAGE_SLOTS, PageSums, page_range
from agentmem.store.segment import SegmentSet
from agentmem.store.tensor_file import RawArray, TensorWriter, raw_array


class DiskTokenLog:
    """One agent's raw K/V on disk; see :class:`agentmem.memory.source.TokenLog`.

    Raises:
        DamagedError: bytes to be read are not what was written.
        StoreError: tokens are appended outside a turn, or the disk refused them.
    """

    def __init__(
        self,
        layout: KVLayout,
        segments: SegmentSet,
        branch: BranchMap,
        tail: Tail,
        dead: Iterable[tuple[int, int]],
    ) -> None:
        self._layout = layout
        self._segments = segments
        self._branch = branch
        self._committed = branch.length
        self._committed_tail = tail
        self._tail = tail
        self._dead = list(dead)
        self._open = False
        self._left: tuple[BranchMap, list[tuple[int, int]]] | None = None
        self._begun: tuple[BranchMap, list[tuple[int, int]], Tail] | None = None
        self._writers: dict[int, TensorWriter] = {}
        self._folder_changed = False
        self._head_rows = [
            np.arange(heads, dtype=np.int64)[:, None] * segments.capacity for heads, _ in layout.layers
        ]

    @property
    def layout(self) -> KVLayout:
        """Shapes and dtype of what is kept."""
        return self._layout

    @property
    def length(self) -> int:
        """Tokens that can be read, the open turn's included."""
        return self._branch.length

    @property
    def mapped(self) -> BranchMap:
        """Where the tokens lie that can be read; to be looked at alone."""
        return self._branch

    @property
    def committed(self) -> int:
        """Tokens that belong to committed turns."""
        return self._committed

    @property
    def dead(self) -> Sequence[tuple[int, int]]:
        """Forgotten ranges [start, stop), sorted, disjoint; their K/V read as zeros."""
        return tuple(self._dead)

    def append(self, keys_raw: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Add T tokens to the open turn: per layer (Hkv, T, D), CPU. All of them or none."""
        if not self._open:
            raise StoreError("tokens were appended outside a turn; call begin() first")
        count = self._checked_count(keys_raw, values)
        taken, tail = self._tail.take(count, self._segments.capacity)
        try:
            done = 0
            for segment, slot, here in taken:
                writer = self._writer(segment)
                for layer in range(len(self._layout.layers)):
                    rows = slice(done, done + here)
                    writer.write(2 * layer, slot, raw_array(keys_raw[layer][:, rows]))
                    writer.write(2 * layer + 1, slot, raw_array(values[layer][:, rows]))
                done += here
        except OSError as error:
            raise StoreError(
                f"{count} tokens could not be written ({error.strerror}); the turn is as it was before "
                "them. Free some space and repeat, or abort the turn."
            ) from error
        for segment, slot, here in taken:
            self._branch.extend(segment, slot, here)
        self._tail = tail

    def truncate(self, length: int) -> None:
        """Drop the open turn's tokens from ``length`` on; ``length`` >= committed."""
        if not self._committed <= length <= self.length:
            raise InputError(
                f"cannot truncate to {length}: the open turn holds tokens {self._committed} to {self.length}"
            )
        self._branch.truncate(length)
        self._tail = self._committed_tail
        for extent in self._branch.pieces(self._committed, length):
            self._tail = Tail(extent.segment, extent.slot + extent.count)

    def read(
        self, layer: int, start: int, stop: int, keys_out: Tensor | None, values_out: Tensor | None
    ) -> None:
        """Copy tokens [start, stop) of all heads into (Hkv, stop - start, D) buffers."""
        if not 0 <= start <= stop <= self.length:
            raise InputError(f"tokens {start} to {stop} are not in the log, which holds {self.length}")
        heads, dim = self._layout.layers[layer]
        outs = self._buffers(layer, (heads, stop - start, dim), keys_out, values_out)
        if not outs:
            return
        # who reads a layer's tokens reads those of the layers behind it next
        soon = range(outs[0][0], 2 * len(self._layout.layers), 3 - len(outs))
        for piece in self._branch.pieces(start, stop):
            segment = self._segments.get(piece.segment)
            segment.expect_slots(soon, piece.slot, piece.slot + piece.count)
            for tensor, out in outs:
                segment.read(tensor, piece.slot, out[:, piece.start - start : piece.stop - start])

    def gather(self, layer: int, tokens: Tensor, keys_out: Tensor | None, values_out: Tensor | None) -> None:
        """Copy chosen tokens per head: ``tokens`` (Hkv, S) int64 -> (Hkv, S, D) buffers."""
        heads, dim = self._layout.layers[layer]
        positions: NDArray[np.int64] = tokens.numpy()
        if positions.ndim != 2 or len(positions) != heads or positions.dtype != np.int64:
            raise ShapeError(f"tokens: expected ({heads}, S) int64, got {tuple(tokens.shape)} {tokens.dtype}")
        outs = self._buffers(layer, (heads, positions.shape[1], dim), keys_out, values_out)
        if not positions.size:
            return
        low, high = int(positions.min()), int(positions.max())
        if low < 0 or high >= self.length:
            raise InputError(f"tokens {low} to {high} are not in the log, which holds {self.length}")
        plan = plan_gather(self._branch, positions, self._head_rows[layer])
        width, segments = plan.width, [self._segments.get(part.segment) for part in plan.parts]
        for part, segment in zip(plan.parts, segments, strict=True):
            for tensor, _ in outs:
                segment.expect(tensor, part.cells)
        for part, segment in zip(plan.parts, segments, strict=True):
            for tensor, out in outs:
                segment.check(tensor, part.cells)
                for head, start, stop in part.runs:
                    segment.copy(
                        tensor, plan.rows[head, start:stop], width, out[head, start * width : stop * width]
                    )

    def begin(self, branch: BranchMap | None = None, dead: Iterable[tuple[int, int]] = ()) -> None:
        """Let tokens be appended: after those held, or after those of another branch, until an abort."""
        if branch is not None:
            self._left = (self._branch, self._dead)
            self._branch, self._dead = branch, list(dead)
            self._committed = branch.length
        self._start_turn()
        self._segments.distrust()
        self._open = True

    def stand(self, branch: BranchMap, dead: Iterable[tuple[int, int]] = ()) -> None:
        """Keep what the open turn has appended so far, and go on after the tokens of another branch."""
        if self._begun is None:
            self._begun = (self._branch, self._dead, self._committed_tail)
        self._branch, self._dead = branch, list(dead)
        self._committed = branch.length
        self._start_turn()

    def end_part(self) -> None:
        """The tokens since ``stand`` are a turn of their own: what follows is another one's."""
        self._segments.seal(self.new_extents())
        self._committed = self.length
        self._start_turn()

    def abort(self) -> None:
        """Drop the open turn's tokens, whose slots are used again; stand where ``begin`` was called."""
        self.truncate(self._committed)
        if self._begun is not None:
            self._branch, self._dead, self._committed_tail = self._begun
            self._committed = self._branch.length
            self._tail = self._committed_tail
        if self._left is not None:
            self._branch, self._dead = self._left
            self._committed = self._branch.length
        self._end_turn()

    def sync(self) -> None:
        """Put the open turn's tokens on the medium. Raises OSError, after which nothing may be committed."""
        self._segments.seal(self.new_extents())
        for writer in self._writers.values():
            sync_file(writer.fd)
        if self._folder_changed:
            sync_folder(self._segments.folder)
            self._folder_changed = False

    def new_extents(self) -> list[Extent]:
        """Where the open turn's tokens lie."""
        return self._branch.pieces(self._committed, self.length)

    def new_pages(self) -> list[tuple[int, PageSums]]:
        """(segment, checksums) of every page the open turn wrote to. Raises DamagedError."""
        return self.pages_of(self.new_extents())

    def pages_of(self, extents: Iterable[Extent]) -> list[tuple[int, PageSums]]:
        """(segment, checksums) of the pages of newly written extents, up to their ends. Raises DamagedError."""
        filled: dict[tuple[int, int], int] = {}
        for extent in extents:  # in the order they were written: a page may end in a later one
            stop = extent.slot + extent.count
            for page in page_range(extent.slot, stop):
                filled[extent.segment, page] = min(PAGE_SLOTS, stop - page * PAGE_SLOTS)
        return [
            (segment, self._segments.get(segment).pages.sums_of(page, slots))
            for (segment, page), slots in filled.items()
        ]

    def settle(self, pages: Iterable[tuple[int, PageSums]]) -> None:
        """The open turn was committed with these checksums."""
        for segment, page in pages:
            self._segments.get(segment).pages.renew([page])
        self._committed = self.length
        self._committed_tail = self._tail
        self._end_turn()

    def move(self, branch: BranchMap, tail: Tail, dead: Iterable[tuple[int, int]]) -> None:
        """Stand on another branch, or on the same one after something was forgotten."""
        self._branch = branch
        self._committed = branch.length
        self._committed_tail = self._tail = tail
        self._dead = list(dead)

    def _start_turn(self) -> None:
        """Where its first token goes is for the segments to say."""
        self._tail = Tail(self._tail.segment, self._segments.start_of_turn(self._tail.slot))
        self._committed_tail = self._tail

    def _end_turn(self) -> None:
        self._open = False
        self._left = self._begun = None
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _writer(self, segment: int) -> TensorWriter:
        writer = self._writers.get(segment)
        if writer is None:
            known = segment == self._committed_tail.segment and self._committed_tail.slot > 0
            if not known and self._segments.create(segment):
                self._folder_changed = True
            writer = self._writers[segment] = self._segments.writer(segment)
            self._segments.begin(segment, self._committed_tail.slot if known else 0)
        return writer

    def _buffers(
        self, layer: int, shape: tuple[int, ...], keys: Tensor | None, values: Tensor | None
    ) -> list[tuple[int, RawArray]]:
        outs = []
        for part, (name, out) in enumerate((("keys_out", keys), ("values_out", values))):
            if out is not None:
                if out.shape != shape or out.dtype != self._layout.dtype:
                    raise ShapeError(
                        f"{name}: expected {shape} {self._layout.dtype}, got {tuple(out.shape)} {out.dtype}"
                    )
                outs.append((2 * layer + part, raw_array(out)))
        return outs

    def _checked_count(self, keys: Sequence[Tensor], values: Sequence[Tensor]) -> int:
        layers = self._layout.layers
        if len(keys) != len(layers) or len(values) != len(layers):
            raise ShapeError(f"expected K/V of {len(layers)} layers, got {len(keys)} and {len(values)}")
        count = keys[0].shape[1] if keys[0].ndim == 3 else -1
        for name, tensors in (("keys", keys), ("values", values)):
            for layer, ((heads, dim), tensor) in enumerate(zip(layers, tensors, strict=True)):
                if tensor.shape != (heads, count, dim) or tensor.dtype != self._layout.dtype:
                    raise ShapeError(
                        f"{name}[{layer}]: expected ({heads}, {max(count, 0)}, {dim}) {self._layout.dtype}, "
                        f"got {tuple(tensor.shape)} {tensor.dtype}"
                    )
        return count

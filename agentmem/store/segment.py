"""Segments: files of raw keys and values with their checksums, opened when first read.

A segment holds ``layers.{i}.keys`` and ``layers.{i}.values`` of (Hkv, capacity, D). Knows slots, pages
and files; nothing of turns, branches or token positions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agentmem.errors import ClosedError
from agentmem.memory.source import KVLayout
from agentmem.store.extents import Extent
from agentmem.store.files import opened, punch, sync_file, sync_folder
from agentmem.store.gathering import spread
from agentmem.store.loose_segment import LooseSegment
from agentmem.store.pages import PAGE_SLOTS, PageSums, PageTable
from agentmem.store.tensor_file import (
    RawArray,
    TensorFile,
    TensorFileSpec,
    TensorWriter,
    copy_used,
    create_tensor_file,
)

LoadPages = Callable[..., Iterable[PageSums]]
"""The checksums of a segment's pages: of all, or of pages [first, stop)."""
LoadLive = Callable[[int], Sequence[tuple[int, int]]]


def nothing_live(_: int) -> Sequence[tuple[int, int]]:
    """For segments that somebody else may punch holes into at any moment."""
    return ()


def segment_spec(layout: KVLayout, capacity: int) -> TensorFileSpec:
    """What a segment file of ``capacity`` token slots looks like."""
    names = tuple(f"layers.{i}.{part}" for i in range(len(layout.layers)) for part in ("keys", "values"))
    shapes = tuple(shape for shape in layout.layers for _ in range(2))
    return TensorFileSpec(names, shapes, capacity, layout.dtype)


class Segment:
    """One open segment. Bytes are checked before they are copied out."""

    def __init__(self, file: TensorFile, pages: PageTable) -> None:
        file.expect_anything()
        self.file = file
        self.pages = pages
        self._bytes_copied = 0

    @property
    def bytes_read(self) -> int:
        """Bytes checked and copied out since opening."""
        return self._bytes_copied + self.pages.bytes_checked

    def expect(self, tensor: int, cells: Iterable[int]) -> None:
        """Pages of single heads (head * pages + page) are about to be read: fetch them side by side if they are cold.

        Met one after the other, each would be waited for. Three stand for all, since asking takes time too.
        """
        due = self.pages.due(tensor, cells)
        start, size = self.file.spec.offsets[tensor], PAGE_SLOTS * self.file.row_bytes(tensor)
        if len(due) > 1 and any(self.file.is_cold(start + due[at] * size) for at in (0, len(due) // 2, -1)):
            for cell in due:
                self.file.fetch(start + cell * size, size)

    def expect_slots(self, tensors: Sequence[int], start: int, stop: int) -> None:
        """The same of slots [start, stop) of all heads of ``tensors``; the first one stands for all."""
        spec = self.file.spec
        if not self.file.is_cold(spec.offset(tensors[0], 0, start)):
            return
        for tensor in tensors:
            size = (stop - start) * self.file.row_bytes(tensor)
            for head in range(spec.shapes[tensor][0]):
                self.file.fetch(spec.offset(tensor, head, start), size)

    def check(self, tensor: int, cells: Iterable[int]) -> None:
        """Check pages of single heads (head * pages + page). Raises DamagedError."""
        self.file.check_size()
        self.pages.check_cells(tensor, cells)

    def copy(self, tensor: int, rows: NDArray[np.int64], width: int, out: RawArray) -> None:
        """Copy runs of ``width`` rows (head * capacity + slot), just checked, to ``out`` (n * width, D)."""
        self._bytes_copied += out.nbytes
        if width > 1 and out.flags.c_contiguous and self.pages.whole_runs(rows, width):
            runs = self.file.rows(tensor).reshape(-1, width * out.shape[1])
            _take(runs, rows // width, out.reshape(len(rows), -1))  # a run at a time
            return
        rows = spread(rows, width)
        whole = self.pages.whole_rows(rows)
        if whole is None:
            _take(self.file.rows(tensor), rows, out)
        else:
            _take_or_read(self.file, tensor, rows, whole, out)

    def read(self, tensor: int, slot: int, out: RawArray) -> None:
        """Copy slots from ``slot`` on, all heads, to ``out`` (Hkv, T, D)."""
        heads, count, dim = out.shape
        self.file.check_size()
        self.pages.check_slots(tensor, slot, slot + count)
        if self.pages.whole_slots(slot, slot + count):
            np.copyto(out, self.file.rows(tensor).reshape(heads, -1, dim)[:, slot : slot + count])
        else:
            for head in range(heads):
                self.file.read_rows(tensor, head * self.file.spec.capacity + slot, out[head])
        self._bytes_copied += out.nbytes


class SegmentSet:
    """An agent's segments by number.

    Args:
        folder: where the files lie.
        layout: shapes and dtype.
        capacity: slots of a segment.
        agent_id: for messages.
        load_pages: delivers the checksums that the index holds of a segment.
        load_live: delivers the slots of a segment whose bytes are there, sorted and disjoint.
    """

    def __init__(
        self,
        folder: Path,
        layout: KVLayout,
        capacity: int,
        agent_id: str,
        load_pages: LoadPages,
        load_live: LoadLive,
    ) -> None:
        self.folder = folder
        self.capacity = capacity
        self.spec = segment_spec(layout, capacity)
        self.agent_id = agent_id
        self._load_pages = load_pages
        self._load_live = load_live
        self._open: dict[int, Segment] = {}
        self._bytes_read_before = 0
        self._closed = False

    @property
    def bytes_read(self) -> int:
        """Bytes checked and copied out of all segments since opening."""
        return self._bytes_read_before + sum(segment.bytes_read for segment in self._open.values())

    def path(self, number: int) -> Path:
        """The file of a segment."""
        return self.folder / f"{number:06d}.safetensors"

    def get(self, number: int) -> Segment:
        """An open segment. Raises DamagedError when its file is not what was made."""
        segment = self._open.get(number)
        if segment is None:
            if self._closed:
                raise ClosedError(f"agent {self.agent_id!r} was closed; open it again")
            segment = self._open[number] = self._opened(number)
        return segment

    def _opened(self, number: int) -> Segment:
        file = TensorFile(self.path(number), self.spec, self.agent_id)
        return Segment(file, PageTable(file, self._load_pages(number), self._load_live(number)))

    def create(self, number: int) -> bool:
        """Make the file of a new segment; False when an abandoned turn had made it already."""
        try:
            create_tensor_file(self.path(number), self.spec)
        except FileExistsError:
            return False
        return True

    def loose(self, number: int) -> LooseSegment:
        """What there is of a segment's file, whatever happened to it."""
        return LooseSegment(self.path(number), self.spec)

    def begin(self, number: int, slot: int) -> None:
        """An open turn writes to a segment from this slot on, where nothing committed lies."""

    def start_of_turn(self, slot: int) -> int:
        """The first slot from ``slot`` on that a turn may begin with."""
        return slot

    def seal(self, extents: Iterable[Extent]) -> None:
        """The tokens of a turn are about to be synced: put them into the files, where that was not done yet."""

    def table(self, number: int) -> PageTable:
        """A segment's pages, none of them checked yet; to be closed by ``file.close``. Raises DamagedError."""
        return PageTable(TensorFile(self.path(number), self.spec, self.agent_id), self._load_pages(number))

    def writer(self, number: int) -> TensorWriter:
        """A writer for a segment's slots. Raises DamagedError, OSError."""
        return TensorWriter(self.path(number), self.spec, self.agent_id)

    def shared(self, number: int) -> bool:
        """Whether another agent's folder links the same file, so that it must not be altered."""
        path = self.path(number)
        return path.exists() and path.stat().st_nlink > 1

    def own(self, number: int, used: int) -> None:
        """Make sure no other agent shares the file: one with more links is replaced by a copy. Synced."""
        path = self.path(number)
        if not self.shared(number):
            return
        copy = path.with_suffix(".copy")
        copy.unlink(missing_ok=True)
        self.copy(number, copy, used)
        with opened(copy, os.O_RDWR) as fd:
            sync_file(fd)
        os.replace(copy, path)
        sync_folder(self.folder)
        self.drop(number)

    def copy(self, number: int, target: Path, used: int) -> None:
        """Copy the slots in use to another file; what was freed stays free. Raises OSError, DamagedError."""
        copy_used(self.get(number).file, target, self.start_of_turn(used), self._load_live(number))

    def free_pages(self, number: int, pages: Iterable[tuple[int, int]]) -> None:
        """Give ranges of whole pages back to the file system, where it takes them; they read as zeros after.

        A file that is shared with a fork is left alone.
        """
        if self.shared(number):
            return
        with opened(self.path(number), os.O_RDWR) as fd:
            for start, stop in pages:
                for tensor, (heads, dim) in enumerate(self.spec.shapes):
                    size = (stop - start) * PAGE_SLOTS * dim * self.spec.dtype.itemsize
                    for head in range(heads):
                        if not punch(fd, self.spec.offset(tensor, head, start * PAGE_SLOTS), size):
                            return

    def distrust(self) -> None:
        """A turn begins: everything is checked again when it is next read."""
        for segment in self._open.values():
            segment.pages.distrust()

    def stop_mapping(self) -> None:
        """A writer is at work beside this reader: what may become a hole is not read through a map any more."""
        self._load_live = nothing_live
        for segment in self._open.values():
            segment.pages.stop_mapping()

    def drop(self, number: int) -> None:
        """Close a segment; the next ``get`` opens it anew and checks it again."""
        segment = self._open.pop(number, None)
        if segment is not None:
            self._bytes_read_before += segment.bytes_read
            segment.file.close()

    def keep_open(self, numbers: Collection[int]) -> None:
        """Close all segments but these."""
        for number in set(self._open) - set(numbers):
            self.drop(number)

    def close(self) -> None:
        """Close all segments for good; closing twice is fine."""
        self.keep_open(())
        self._closed = True


def _take(rows: RawArray, index: NDArray[np.int64], out: RawArray) -> None:
    if out.flags.c_contiguous:
        np.take(rows, index, axis=0, out=out, mode="clip")  # a mode other than raise copies in place
    else:
        out[...] = rows[index]


def _take_or_read(
    file: TensorFile, tensor: int, index: NDArray[np.int64], whole: NDArray[np.bool_], out: RawArray
) -> None:
    """Take rows of whole pages from the map, and read the others in runs."""
    there = np.flatnonzero(whole)
    if len(
        there
    ):  # in the others' places something that is there, for now: picking them out costs three times as much
        _take(file.rows(tensor), np.where(whole, index, index[there[0]]), out)
    others = np.flatnonzero(~whole)
    if not len(others):
        return
    apart = (np.diff(others) != 1) | (np.diff(index[others]) != 1)
    cuts = (np.flatnonzero(apart) + 1).tolist()
    for first, last in zip([0, *cuts], [*cuts, len(others)], strict=True):
        start = int(others[first])
        file.read_rows(tensor, int(index[start]), out[start : start + last - first])

"""Taking what was read on the host to where it is computed with.

On the CPU nothing is moved. For a GPU bytes are read into pinned memory and copied by a stream of their own,
in two halves that take turns: while one is on its way the host reads the next, and the device goes on with
whatever was asked of it before (InfLLM's offloading, arXiv 2402.04617 §3.3). Knows no log and no blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch
from torch import Tensor

HALF_BYTES = 4 << 20
"""Each half at most: large enough for the bus, small enough to stay in the host's cache."""

Read = Callable[[int, int, Tensor], None]
"""Fills CPU memory (H, stop - start, n) with columns [start, stop)."""
Take = Callable[[int, int, Tensor], None]
"""Uses columns [start, stop) on the device, in the current stream's order; they are valid until it returns."""


class Courier(Protocol):
    """Brings columns to the device, some at a time."""

    @property
    def device_bytes(self) -> int:
        """Memory of the device that it keeps for itself."""
        ...

    def in_order(self) -> AbstractContextManager[None]:
        """What is asked of the device inside comes after all that was asked inside before, in whichever stream."""
        ...

    def bring(self, rows: int, columns: int, width: int, read: Read, take: Take) -> int:
        """Read (rows, columns, width) elements and have them taken; returns the bytes that crossed to a device."""
        ...


class Carrying:
    """On the CPU: what was read is there. ``elements`` and ``dtype`` of the room it is read into."""

    device_bytes = 0

    def __init__(self, elements: int, dtype: torch.dtype) -> None:
        self._room = torch.empty(elements, dtype=dtype)

    def in_order(self) -> AbstractContextManager[None]:
        """See :meth:`Courier.in_order`."""
        return nullcontext()

    def bring(self, rows: int, columns: int, width: int, read: Read, take: Take) -> int:
        """See :meth:`Courier.bring`."""
        for start, stop in _batches(rows, columns, width, self._room.numel()):
            room = _shaped(self._room, rows, stop - start, width)
            read(start, stop, room)
            take(start, stop, room)
        return 0


class Shipping:
    """To a GPU: pinned halves of ``elements`` each, a stream, and an event at each hand-over."""

    def __init__(self, elements: int, dtype: torch.dtype, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._halves = [_Half(elements, dtype, device) for _ in range(2)]
        self._next = 0
        self._last = torch.cuda.Event()
        self.device_bytes = 2 * elements * dtype.itemsize

    @contextmanager
    def in_order(self) -> Iterator[None]:
        """See :meth:`Courier.in_order`."""
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(self._last)
        try:
            yield
        finally:
            self._last.record(stream)

    def bring(self, rows: int, columns: int, width: int, read: Read, take: Take) -> int:
        """See :meth:`Courier.bring`."""
        moved, elements = 0, self._halves[0].pinned.numel()
        compute = torch.cuda.current_stream(self._device)
        for start, stop in _batches(rows, columns, width, elements):
            half = self._halves[self._next]
            self._next = 1 - self._next
            half.copied.synchronize()  # its last load left the host; an event never recorded is over
            pinned = _shaped(half.pinned, rows, stop - start, width)
            landed = _shaped(half.landed, rows, stop - start, width)
            read(start, stop, pinned)
            with torch.cuda.stream(self._stream):
                self._stream.wait_event(half.taken)
                landed.copy_(pinned, non_blocking=True)
                half.copied.record(self._stream)
            compute.wait_event(half.copied)
            try:
                take(start, stop, landed)
            finally:  # whatever it had asked of the device still reads what landed
                half.taken.record(compute)
            moved += landed.numel() * landed.element_size()
        return moved


class _Half:
    """Pinned memory, where it lands, and how far both are done with."""

    def __init__(self, elements: int, dtype: torch.dtype, device: torch.device) -> None:
        self.pinned = torch.empty(elements, dtype=dtype, pin_memory=True)
        self.landed = torch.empty(elements, dtype=dtype, device=device)
        self.copied = torch.cuda.Event()
        self.taken = torch.cuda.Event()


def make_courier(elements: int, dtype: torch.dtype, device: torch.device) -> Courier:
    """The one for a device; ``elements`` is what it carries at once."""
    if device.type == "cuda":
        return Shipping(elements, dtype, device)
    return Carrying(elements, dtype)


def _batches(rows: int, columns: int, width: int, elements: int) -> list[tuple[int, int]]:
    """[start, stop) of columns, as many at a time as fit ``elements``, at least one."""
    step = max(1, elements // max(1, rows * width))
    return [(start, min(start + step, columns)) for start in range(0, columns, step)]


def _shaped(room: Tensor, rows: int, columns: int, width: int) -> Tensor:
    return room[: rows * columns * width].view(rows, columns, width)

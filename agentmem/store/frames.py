"""Memory for the rows of open turns: frames of 32 rows, handed out in order and let go all at once.

A turn's rows come a few kilobytes here and a few there. Fresh memory for them costs more than encrypting them (80
MB: 37 ms in pages of 4 KB, 2 ms in huge ones), and huge pages pay only where bytes lie side by side. Whoever takes
frames remembers what lies where. Knows bytes and numbers of frames; nothing of files or keys.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from agentmem.store.pages import PAGE_SLOTS
from agentmem.store.tensor_file import RawArray

_SMALL = 1 << 21
"""The first bytes are taken page by page: many an agent needs no more."""


def private_memory(size: int) -> mmap.mmap:
    """Zeros that take memory where they are written to, and do not get into a core dump."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_DONTDUMP"):  # what is encrypted at rest shall not lie there
        memory.madvise(mmap.MADV_DONTDUMP)
    return memory


class FramePool:
    """Frames of 32 rows of ``dim`` numbers of type ``raw``, with room for ``size`` bytes at first.

    Only what is written to takes memory.
    """

    def __init__(self, dim: int, raw: DTypeLike, size: int) -> None:
        self._dim = dim
        self._raw = np.dtype(raw)
        self._used = 0
        self._frames = self._made(max(1, size // self.frame_bytes))

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame."""
        return PAGE_SLOTS * self._dim * self._raw.itemsize

    @property
    def held(self) -> int:
        """Bytes of all frames that were handed out."""
        return self._used * self.frame_bytes

    @property
    def frames(self) -> RawArray:
        """All frames: (frames, 32, dim). Not to be kept: it is another array once the pool has grown."""
        return self._frames

    def take(self, count: int) -> NDArray[np.int64]:
        """Numbers of new frames, consecutive; what they hold is not defined."""
        first, self._used = self._used, self._used + count
        if self._used > len(self._frames):
            grown = self._made(max(self._used, 2 * len(self._frames)))
            grown[:first] = self._frames[:first]
            self._frames = grown
        return np.arange(first, self._used, dtype=np.int64)

    def _made(self, frames: int) -> RawArray:
        size = frames * self.frame_bytes
        memory = private_memory(size)
        if hasattr(mmap, "MADV_HUGEPAGE") and size > _SMALL:
            memory.madvise(mmap.MADV_HUGEPAGE, _SMALL)
        return np.frombuffer(memory, dtype=self._raw).reshape(frames, PAGE_SLOTS, self._dim)


class Frames:
    """One pool for each length of rows.

    Args:
        dims: the lengths there are.
        raw: the rows' type.
        size: bytes that there is room for at first.
    """

    def __init__(self, dims: Iterable[int], raw: DTypeLike, size: int) -> None:
        self._raw = raw
        self._size = size
        lengths = sorted(set(dims))
        self._pools = {dim: FramePool(dim, raw, size // len(lengths)) for dim in lengths}

    @property
    def held(self) -> int:
        """Bytes of all frames that were handed out."""
        return sum(pool.held for pool in self._pools.values())

    def pool(self, dim: int) -> FramePool:
        """The pool for rows of ``dim`` numbers."""
        return self._pools[dim]

    def emptied(self) -> Frames:
        """The same with nothing in it."""
        return Frames(self._pools, self._raw, self._size)

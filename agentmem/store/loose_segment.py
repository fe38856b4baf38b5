"""A segment file as it is, whatever its length and header are: what is left of a damaged one.

Reads with plain reads, never through a map. Knows rows, pages and checksums; nothing of turns.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from agentmem.store.failures import is_lost
from agentmem.store.files import read_all
from agentmem.store.pages import PAGE_SLOTS, PageSums
from agentmem.store.tensor_file import TensorFileSpec, flaw_in

_SUM = np.dtype("<u8")


class LooseSegment:
    """One file. Bytes that cannot be had are missing.

    Raises:
        OSError: it cannot be opened for a reason that says nothing of the file.
    """

    def __init__(self, path: Path, spec: TensorFileSpec) -> None:
        self.spec = spec
        columns = [(tensor, head) for tensor, (heads, _) in enumerate(spec.shapes) for head in range(heads)]
        self.columns = {column: number for number, column in enumerate(columns)}
        """Numbers of (tensor, head), in file order."""
        self._fd = _opened(path)
        self.flawed = self._fd < 0 or _flawed(self._fd, spec)

    def rows(self, tensor: int, head: int, slot: int, stop: int) -> bytes:
        """The bytes of one head's slots [slot, stop); fewer where the file ends or the disk fails."""
        return self.stored(tensor, head, slot, stop)

    def stored(self, tensor: int, head: int, slot: int, stop: int) -> bytes:
        """The same as the file has them."""
        if self._fd < 0:
            return b""
        size = self.spec.shapes[tensor][1] * self.spec.dtype.itemsize
        try:
            return read_all(self._fd, (stop - slot) * size, self.spec.offset(tensor, head, slot))
        except OSError as error:
            if not is_lost(error):
                raise
            return b""

    def all_rows(self, tensor: int, slot: int, stop: int) -> NDArray[np.uint8]:
        """The bytes of all heads' slots [slot, stop) of a tensor whose pages are whole: (Hkv, stop - slot, bytes)."""
        heads = self.spec.shapes[tensor][0]
        data = b"".join(self.rows(tensor, head, slot, stop) for head in range(heads))
        return np.frombuffer(data, dtype=np.uint8).reshape(heads, stop - slot, -1)

    def wrong_columns(self, page: PageSums) -> list[tuple[int, int]]:
        """(tensor, head) of every column of a page that is not what was written."""
        first = page.page * PAGE_SLOTS
        return [
            (tensor, head)
            for tensor, head in self.columns
            if not self.fits(page, tensor, head, self.rows(tensor, head, first, first + page.filled))
        ]

    def fits(self, page: PageSums, tensor: int, head: int, rows: bytes) -> bool:
        """Whether rows of a whole column are what its page was committed with."""
        expected = np.frombuffer(page.sums, dtype=_SUM)[self.columns[tensor, head]]
        return bool(xxh3_64_intdigest(rows) == int(expected))

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _opened(path: Path) -> int:
    """A descriptor; -1 for a file that is lost."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if not is_lost(error):
            raise
        return -1


def _flawed(fd: int, spec: TensorFileSpec) -> bool:
    try:
        return flaw_in(fd, spec) is not None
    except OSError as error:
        if not is_lost(error):
            raise
        return True

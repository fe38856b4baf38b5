"""Segments of an encrypted agent: each page's columns are AES-GCM messages, decrypted into memory when first read.

A file has the same shape as a plain one, with ciphertext in its rows. What stands for a page's checksums in
the index is its nonce and one tag per (layer, keys|values, KV head); each message is bound to agent, segment,
page, column and length, so that none can be moved, and an older one does not fit the index any more. A page
is written once: every turn starts on a page of its own, since adding to a message would risk what it holds.
Decrypted bytes are kept up to a budget. Knows nothing of turns or SQLite.
"""

from __future__ import annotations

import mmap
import os
import secrets
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agentmem.errors import StoreError
from agentmem.memory.source import KVLayout
from agentmem.store.cipher import TAG_BYTES, Cipher
from agentmem.store.extents import Extent
from agentmem.store.files import opened, write_all
from agentmem.store.keys import DataKey
from agentmem.store.pages import PAGE_SLOTS, PageSums, PageTable, page_range
from agentmem.store.segment import LoadLive, LoadPages, Segment, SegmentSet
from agentmem.store.tensor_file import RawArray, TensorFile, TensorFileSpec, TensorWriter

NONCE = 8
"""A page's nonce; with the column's number it is the message's."""
HELD_BYTES = 256 << 20
"""Decrypted bytes that are kept for all segments together, about."""


class EncryptedFile(TensorFile):
    """A file whose rows are views of memory of our own, where they are put when they are decrypted."""

    def __init__(self, path: Path, spec: TensorFileSpec, agent_id: str) -> None:
        self.written = False
        """Whether an open turn has rows here that are not in the file yet."""
        super().__init__(path, spec, agent_id)

    def forget(self) -> None:
        """Let everything decrypted go; it reads as zeros."""
        self._map.madvise(mmap.MADV_DONTNEED)

    def _mapped(self) -> mmap.mmap:
        return mmap.mmap(-1, self.spec.size)


class EncryptedPages(PageTable):
    """The pages of one encrypted segment: checking a column decrypts it.

    Args:
        file: whose rows they are.
        pages: nonces and tags, as the index has them.
        cipher: AES-GCM under the segment's key.
        bound: what names the segment.
    """

    def __init__(self, file: EncryptedFile, pages: Iterable[PageSums], cipher: Cipher, bound: bytes) -> None:
        self._source = file
        self._cipher = cipher
        self._bound = bound
        self._records: dict[int, bytes] = {}
        self.held = 0
        """Bytes decrypted since the last ``release``."""
        super().__init__(file, pages, [(0, file.spec.capacity)])  # memory has no holes

    @property
    def source(self) -> EncryptedFile:
        """Whose rows they are."""
        return self._source

    def seal(self, page: int, filled: int, fd: int) -> PageSums:
        """Encrypt a page's first ``filled`` rows into the file. Raises OSError."""
        nonce, tags = secrets.token_bytes(NONCE), []
        first, spec = page * PAGE_SLOTS, self._source.spec
        for tensor, (heads, _) in enumerate(spec.shapes):
            for head in range(heads):
                plain = self._source.bytes_of(tensor, head, first, first + filled)
                number = self._columns[tensor] + head
                data = self._cipher.encrypt(*self._message(nonce, page, number, filled, plain))
                write_all(fd, data[:-TAG_BYTES], spec.offset(tensor, head, first))
                tags.append(data[-TAG_BYTES:])
        return PageSums(page, filled, nonce + b"".join(tags))

    def release(self) -> None:
        """Let decrypted rows go, unless an open turn has rows here that are not in the file yet."""
        if self._source.written:
            return
        self._source.forget()
        self.held = 0
        for unchecked in self._unchecked:
            unchecked.reshape(-1, len(self._filled))[:, list(self._records)] = True

    def distrust(self) -> None:
        """What was decrypted lies in memory of our own, where nobody changes it."""

    def sums_of(self, page: int, filled: int) -> PageSums:
        """A page's nonce and tags; they cover exactly what was sealed. Raises StoreError."""
        if page not in self._records or self._filled[page] != filled:
            raise StoreError(f"{self._source.label}: page {page} was not sealed with {filled} slots")
        return PageSums(page, filled, self._records[page])

    def sums_with_zeros(self, page: int, slots: Iterable[tuple[int, int]]) -> PageSums:
        """What stands for a page whose slots are all zeros; encrypted pages are never forgotten in part."""
        first, filled = page * PAGE_SLOTS, self.filled(page)
        if not any(start <= first and stop >= first + filled for start, stop in slots):
            raise StoreError(f"{self._source.label}: page {page} cannot be forgotten in part")
        return PageSums(page, filled, bytes(NONCE + TAG_BYTES * self._columns[-1]))

    def _set(self, pages: Iterable[PageSums], *, checked: bool) -> None:
        size = NONCE + TAG_BYTES * self._columns[-1]
        for page in pages:
            if len(page.sums) != size or not 0 <= page.page < len(self._filled):
                raise self._source.damaged(f"page {page.page}", "the index has no tags for it")
            self._records[page.page] = page.sums
            self._filled[page.page] = page.filled
            for unchecked in self._unchecked:
                unchecked.reshape(-1, len(self._filled))[:, page.page] = not checked

    def _matches(self, tensor: int, head: int, page: int) -> bool:
        return self._opened(tensor, head, page) is not None

    def _check(self, tensor: int, cells: NDArray[np.int64]) -> None:
        self._source.check_size()
        for cell in cells.tolist():
            head, page = divmod(cell, len(self._filled))
            plain = self._opened(tensor, head, page)
            if plain is None:
                raise self._wrong(tensor, head, page)
            first = page * PAGE_SLOTS
            self._source.bytes_of(tensor, head, first, first + self.filled(page))[:] = plain
            self.held += len(plain)
        self._unchecked[tensor][cells] = False

    def _opened(self, tensor: int, head: int, page: int) -> bytes | None:
        """A column's rows, decrypted; None when they are not what was written."""
        record, filled, number = self._records[page], self.filled(page), self._columns[tensor] + head
        first = page * PAGE_SLOTS
        data = self._source.stored_bytes(tensor, head, first, first + filled)
        self.bytes_checked += len(data)
        if not any(record):  # forgotten: whatever lies there, nobody can read it any more
            return bytes(len(data))
        tag = record[NONCE + TAG_BYTES * number : NONCE + TAG_BYTES * (number + 1)]
        return self._cipher.decrypt(*self._message(record[:NONCE], page, number, filled, data + tag))

    def _message(
        self, nonce: bytes, page: int, number: int, filled: int, data: bytes | memoryview
    ) -> tuple[bytes, bytes | memoryview, bytes]:
        place = struct.pack("<III", page, number, filled)
        return nonce + struct.pack("<I", number), data, self._bound + place


class EncryptedWriter(TensorWriter):
    """Keeps an open turn's rows in memory, from where they are sealed when the turn is synced."""

    def __init__(self, path: Path, spec: TensorFileSpec, agent_id: str, file: EncryptedFile) -> None:
        super().__init__(path, spec, agent_id)
        self._file = file

    def write(self, tensor: int, slot: int, rows: RawArray) -> None:
        """Take ``rows`` (Hkv, T, D) for slots [slot, slot + T)."""
        heads, count, dim = rows.shape
        self._file.written = True
        self._file.rows(tensor).reshape(heads, -1, dim)[:, slot : slot + count] = rows

    def close(self) -> None:
        """Close the descriptor; what was not sealed is let go."""
        super().close()
        self._file.written = False


class EncryptedSegmentSet(SegmentSet):
    """The segments of an encrypted agent; see :class:`agentmem.store.segment.SegmentSet`."""

    def __init__(
        self,
        folder: Path,
        layout: KVLayout,
        capacity: int,
        agent_id: str,
        load_pages: LoadPages,
        load_live: LoadLive,
        key: DataKey,
    ) -> None:
        super().__init__(folder, layout, capacity, agent_id, load_pages, load_live)
        self._key = key
        self._tables: dict[int, EncryptedPages] = {}

    def get(self, number: int) -> Segment:
        """An open segment. Raises DamagedError when its file is not what was made."""
        if sum(table.held for table in self._tables.values()) > HELD_BYTES:
            for table in self._tables.values():
                table.release()
        return super().get(number)

    @property
    def repairable(self) -> bool:
        """Not in this version: what is computed anew would have to lie in pages of its own."""
        return False

    def start_of_turn(self, slot: int) -> int:
        """Each turn starts on a page of its own."""
        return -(-slot // PAGE_SLOTS) * PAGE_SLOTS

    def seal(self, extents: Iterable[Extent]) -> None:
        """Encrypt a turn's tokens into their files. Raises OSError."""
        for extent in extents:
            self.get(extent.segment)
            table, stop = self._tables[extent.segment], extent.slot + extent.count
            with opened(self.path(extent.segment), os.O_RDWR) as fd:
                sealed = [
                    table.seal(page, min(PAGE_SLOTS, stop - page * PAGE_SLOTS), fd)
                    for page in page_range(extent.slot, stop)
                ]
            table.renew(sealed)

    def table(self, number: int) -> EncryptedPages:
        """A segment's pages, none of them checked yet. Raises DamagedError."""
        file = EncryptedFile(self.path(number), self.spec, self.agent_id)
        bound = f"{self._key.domain} segment {number} ".encode()
        return EncryptedPages(file, self._load_pages(number), self._key.cipher(f"segment {number}"), bound)

    def writer(self, number: int) -> TensorWriter:
        """A writer for a segment's slots. Raises DamagedError, OSError."""
        file = self.get(number).file
        assert isinstance(file, EncryptedFile)
        return EncryptedWriter(self.path(number), self.spec, self.agent_id, file)

    def drop(self, number: int) -> None:
        """Close a segment; the next ``get`` opens it anew and checks it again."""
        self._tables.pop(number, None)
        super().drop(number)

    def _opened(self, number: int) -> Segment:
        table = self._tables[number] = self.table(number)
        return Segment(table.source, table)

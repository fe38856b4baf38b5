"""The pages of an encrypted segment: each column is an AES-GCM message, decrypted into memory when first read.

What stands for a page's checksums in the index is its nonce and one tag per (layer, keys|values, KV head); each
message is bound to agent, segment, page, column and length, so that none can be moved, and an older one does not
fit the index any more. A page is written once, since adding to a message would risk what it holds. Decrypted
columns lie in frames, beside the rows of an open turn, which are not in the file yet. Knows nothing of turns or
SQLite.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from agentmem.errors import StoreError
from agentmem.store.cipher import TAG_BYTES, Bytes, Cipher
from agentmem.store.files import write_all
from agentmem.store.frames import FramePool, Frames
from agentmem.store.pages import PAGE_SLOTS, PageSums, PageTable, page_range
from agentmem.store.tensor_file import RawArray, TensorFile

NONCE = 8
"""A page's nonce; with the column's number it is the message's."""

_NOWHERE = -1


class PageCipher:
    """Encrypts and decrypts the columns of one segment's pages.

    Args:
        cipher: AES-GCM under the segment's key.
        bound: what names the segment.
    """

    def __init__(self, cipher: Cipher, bound: bytes) -> None:
        self._cipher = cipher
        self._bound = bound

    def encrypt(self, nonce: bytes, page: int, column: int, filled: int, rows: Bytes) -> bytes:
        """The ciphertext of a column's first ``filled`` rows, and its tag."""
        place = struct.pack("<III", page, column, filled)
        return self._cipher.encrypt(nonce + place[4:8], rows, self._bound + place)

    def decrypt(self, page: PageSums, column: int, rows: Bytes) -> bytes | None:
        """A column's rows; None when they are not what was written. Forgotten ones are zeros, whatever lies there."""
        sums, at = page.sums, NONCE + TAG_BYTES * column
        place = struct.pack("<III", page.page, column, page.filled)
        message = b"".join((rows, sums[at : at + TAG_BYTES]))
        plain = self._cipher.decrypt(sums[:NONCE] + place[4:8], message, self._bound + place)
        return bytes(len(rows)) if plain is None and not any(sums) else plain


class EncryptedPages(PageTable):
    """The pages of one encrypted segment: checking a column decrypts it.

    Args:
        file: whose rows they are.
        pages: nonces and tags, as the index has them.
        cipher: the segment's.
        frames: where decrypted rows are put.
    """

    def __init__(
        self, file: TensorFile, pages: Iterable[PageSums], cipher: PageCipher, frames: Frames
    ) -> None:
        self._cipher = cipher
        self._frames = frames
        self._records: dict[int, PageSums] = {}
        self._written: set[int] = set()  # pages of an open turn, with rows that are not in the file
        count = file.spec.capacity // PAGE_SLOTS
        # places[tensor][head * pages + page]: the order of a file's rows, 32 to a frame
        self._places = [np.full(heads * count, _NOWHERE, dtype=np.int64) for heads, _ in file.spec.shapes]
        super().__init__(file, pages)

    @property
    def written_bytes(self) -> int:
        """Bytes of an open turn's pages, which are held because they are nowhere else."""
        spec = self._file.spec
        row = sum(heads * dim for heads, dim in spec.shapes) * spec.dtype.itemsize
        return len(self._written) * PAGE_SLOTS * row

    # -- reading --------------------------------------------------------------------------------------

    def check_cells(self, tensor: int, cells: Iterable[int]) -> None:
        """Decrypt columns (head * pages + page), some of them perhaps named twice. Raises DamagedError."""
        wanted = np.array(sorted({*cells}), dtype=np.int64)
        due = wanted[self._places[tensor][wanted] < 0]
        if len(due):
            self._check(tensor, due.tolist())

    def check_slots(self, tensor: int, start: int, stop: int) -> None:
        """Decrypt the columns of slots [start, stop), all heads. Raises DamagedError."""
        pages = page_range(start, stop)
        due = self._by_head(tensor)[:, pages.start : pages.stop] < 0
        if due.any():
            head, page = due.nonzero()
            self._check(tensor, (head * len(self._filled) + page + pages.start).tolist())

    def check_page(self, page: int) -> None:
        """Decrypt every column of a page. Raises DamagedError."""
        for tensor in range(len(self._places)):
            self.check_slots(tensor, page * PAGE_SLOTS, (page + 1) * PAGE_SLOTS)

    def gather(self, tensor: int, rows: NDArray[np.int64], out: RawArray) -> None:
        """Copy rows (head * capacity + slot) that were checked, of any shape, to ``out`` (*shape, D)."""
        at = (self._places[tensor][rows >> 5] << 5) + (rows & 31)
        source = self._pool(tensor).rows
        if out.flags.c_contiguous:
            np.take(source, at, axis=0, out=out, mode="clip")  # a mode other than raise copies in place
        else:
            out[...] = source[at]

    def read(self, tensor: int, slot: int, out: RawArray) -> None:
        """Copy slots from ``slot`` on that were checked, all heads, to ``out`` (Hkv, T, D)."""
        heads, count, dim = out.shape
        pages = page_range(slot, slot + count)
        places = self._by_head(tensor)[:, pages.start : pages.stop]
        first = slot - pages.start * PAGE_SLOTS
        for head in range(heads):
            rows = self._pool(tensor).frames[places[head]].reshape(-1, dim)
            out[head] = rows[first : first + count]

    def distrust(self) -> None:
        """What was decrypted lies in memory of our own, where nobody changes it."""

    # -- writing --------------------------------------------------------------------------------------

    def put(self, tensor: int, slot: int, rows: RawArray) -> None:
        """Take an open turn's ``rows`` (Hkv, T, D) for slots [slot, slot + T), on pages of its own."""
        stop, frames = slot + rows.shape[1], self._by_head(tensor)
        for page in page_range(slot, stop):
            if page not in self._written:
                self._begin(page)
            first = page * PAGE_SLOTS
            low, high = max(slot, first), min(stop, first + PAGE_SLOTS)
            held = self._pool(tensor).frames
            held[frames[:, page], low - first : high - first] = rows[:, low - slot : high - slot]

    def _begin(self, page: int) -> None:
        """Make room for a page; whatever an abandoned turn left there does not count."""
        self._records.pop(page, None)
        self._filled[page] = 0
        self._written.add(page)
        for tensor, (heads, _) in enumerate(self._file.spec.shapes):
            self._by_head(tensor)[:, page] = self._pool(tensor).take(heads)

    def seal(self, slot: int, stop: int, fd: int) -> list[PageSums]:
        """Encrypt an open turn's slots [slot, stop) into the file; returns nonces and tags. Raises OSError."""
        pages, spec = page_range(slot, stop), self._file.spec
        nonces = [secrets.token_bytes(NONCE) for _ in pages]
        tags: list[list[bytes]] = [[] for _ in pages]
        for tensor, (heads, _) in enumerate(spec.shapes):
            for head in range(heads):
                sealed = list(self._sealed(tensor, head, pages, stop, nonces))
                write_all(
                    fd,
                    b"".join(memoryview(one)[:-TAG_BYTES] for one in sealed),
                    spec.offset(tensor, head, pages.start * PAGE_SLOTS),
                )
                for own, one in zip(tags, sealed, strict=True):
                    own.append(one[-TAG_BYTES:])
        return [
            PageSums(page, _filled(page, stop), nonce + b"".join(own))
            for page, nonce, own in zip(pages, nonces, tags, strict=True)
        ]

    def _sealed(
        self, tensor: int, head: int, pages: range, stop: int, nonces: list[bytes]
    ) -> Iterator[bytes]:
        places, frames = self._by_head(tensor)[head], self._pool(tensor).frames
        for page, nonce in zip(pages, nonces, strict=True):
            filled = _filled(page, stop)
            rows = frames[places[page], :filled]
            yield self._cipher.encrypt(nonce, page, self._columns[tensor] + head, filled, rows.data.cast("B"))

    def renew(self, pages: Iterable[PageSums]) -> None:
        """Take over nonces and tags of what was just sealed: it can be read from the file again."""
        new = list(pages)
        super().renew(new)
        self._written -= {page.page for page in new}

    def end_turn(self) -> None:
        """Let go of rows that were not sealed."""
        for page in self._written:
            for tensor in range(len(self._places)):
                self._by_head(tensor)[:, page] = _NOWHERE
        self._written = set()

    def move(self, frames: Frames) -> None:
        """Take an open turn's rows over into other frames, and let all others go."""
        for tensor, places in enumerate(self._places):
            old = self._pool(tensor).frames
            new = frames.pool(old.shape[2])
            kept = np.full_like(places, _NOWHERE)
            cells = np.flatnonzero(
                (places >= 0) & np.isin(np.arange(len(places)) % len(self._filled), list(self._written))
            )
            if len(cells):
                kept[cells] = new.take(len(cells))
                new.frames[kept[cells]] = old[places[cells]]
            self._places[tensor] = kept
        self._frames = frames

    # -- the index's part -----------------------------------------------------------------------------

    def sums_of(self, page: int, filled: int) -> PageSums:
        """A page's nonce and tags; they cover exactly what was sealed. Raises StoreError."""
        record = self._records.get(page)
        if record is None or record.filled != filled:
            raise StoreError(f"{self._file.label}: page {page} was not sealed with {filled} slots")
        return record

    def sums_with_zeros(self, page: int, slots: Iterable[tuple[int, int]]) -> PageSums:
        """What stands for a page whose slots are all zeros; encrypted pages are never forgotten in part."""
        first, filled = page * PAGE_SLOTS, self.filled(page)
        if not any(start <= first and stop >= first + filled for start, stop in slots):
            raise StoreError(f"{self._file.label}: page {page} cannot be forgotten in part")
        return PageSums(page, filled, bytes(NONCE + TAG_BYTES * self._columns[-1]))

    def _set(self, pages: Iterable[PageSums], *, checked: bool) -> None:
        size = NONCE + TAG_BYTES * self._columns[-1]
        for page in pages:
            if len(page.sums) != size or not 0 <= page.page < len(self._filled):
                raise self._file.damaged(f"page {page.page}", "the index has no tags for it")
            self._records[page.page] = page
            self._filled[page.page] = page.filled

    # -- decrypting -----------------------------------------------------------------------------------

    def _matches(self, tensor: int, head: int, page: int) -> bool:
        first = page * PAGE_SLOTS
        data = self._file.stored_bytes(tensor, head, first, first + self.filled(page))
        self.bytes_checked += len(data)
        return self._cipher.decrypt(self._records[page], self._columns[tensor] + head, data) is not None

    def _check(self, tensor: int, cells: Sequence[int]) -> None:
        """Decrypt cells (head * pages + page) of one tensor, ascending; the first wrong one is named."""
        self._file.check_size()
        pool = self._pool(tensor)
        taken = pool.take(len(cells))
        memory = pool.frames[taken[0] : taken[-1] + 1].data.cast("B")
        at, frame, records, decrypt = 0, pool.frame_bytes, self._records, self._cipher.decrypt
        for head, pages, data in self._stored(tensor, np.array(cells, dtype=np.int64)):
            column = self._columns[tensor] + head
            row = frame // PAGE_SLOTS
            for number, page in enumerate(pages):
                record = records.get(page)
                if record is None:
                    raise self._file.damaged(f"page {page}", "the index has no tags for it")
                start = number * frame
                plain = decrypt(record, column, data[start : start + record.filled * row])
                if plain is None:
                    raise self._wrong(tensor, head, page)
                memory[at : at + len(plain)] = plain
                at += frame
                self.bytes_checked += len(plain)
        self._places[tensor][cells] = taken

    def _stored(self, tensor: int, cells: NDArray[np.int64]) -> Iterator[tuple[int, range, memoryview]]:
        """(head, consecutive pages, their bytes as the file has them) of cells in ascending order."""
        pages, frame = len(self._filled), PAGE_SLOTS * self._file.row_bytes(tensor)
        cuts = (np.flatnonzero((np.diff(cells) != 1) | (cells[1:] % pages == 0)) + 1).tolist()
        for low, high in zip([0, *cuts], [*cuts, len(cells)], strict=True):
            head, page = divmod(int(cells[low]), pages)
            offset = self._file.spec.offset(tensor, head, page * PAGE_SLOTS)
            data = self._file.read(offset, (high - low) * frame)
            yield head, range(page, page + high - low), memoryview(data)

    def _pool(self, tensor: int) -> FramePool:
        return self._frames.pool(self._file.spec.shapes[tensor][1])

    def _by_head(self, tensor: int) -> NDArray[np.int64]:
        """Where the columns of a tensor lie: (Hkv, pages)."""
        return self._places[tensor].reshape(-1, len(self._filled))


def _filled(page: int, stop: int) -> int:
    """Slots of a page that lie before ``stop``."""
    return min(PAGE_SLOTS, stop - page * PAGE_SLOTS)

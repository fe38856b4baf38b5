"""The pages of an encrypted segment: each column is an AES-GCM message, decrypted when it is read.

What stands for a page's checksums in the index is its nonce and one tag per (layer, keys|values, KV head); each
message is bound to agent, segment, page, column and length, so that none can be moved, and an older one does not
fit the index any more. A page is written once, since adding to a message would risk what it holds. Rows of an open
turn, which are not in the file yet, lie in frames; what is read goes to its reader alone. Knows nothing of turns or
SQLite.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentmem.errors import StoreError
from agentmem.store.cipher import TAG_BYTES, Bytes, Cipher
from agentmem.store.files import write_all
from agentmem.store.frames import FramePool, Frames
from agentmem.store.gathering import spread
from agentmem.store.pages import PAGE_SLOTS, PageSums, PageTable, page_range
from agentmem.store.tensor_file import RawArray, TensorFile
from agentmem.store.work_room import WorkRoom

NONCE = 8
"""A page's nonce; with the column's number it is the message's."""

_NOWHERE = -1

Decrypt = Callable[[PageSums, memoryview], bytes | None]
"""A page's rows from its message; None when they are not what was written."""


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

    def column(self, column: int, row: int) -> Decrypt:
        """The same for many pages of a column whose rows take ``row`` bytes: faster, and for whole files alone.

        What it gives takes a page and its message: a whole page's ciphertext, with room for a tag behind it.
        """
        decrypt, bound, at = self._cipher.decrypt, self._bound, NONCE + TAG_BYTES * column
        last, pack, whole = struct.pack("<I", column), struct.Struct("<III").pack, PAGE_SLOTS * row

        def decrypted(page: PageSums, message: memoryview) -> bytes | None:
            sums, filled = page.sums, page.filled
            size = filled * row
            if size != whole:
                message = message[: size + TAG_BYTES]
            message[size:] = sums[at : at + TAG_BYTES]
            plain = decrypt(sums[:NONCE] + last, message, bound + pack(page.page, column, filled))
            return bytes(size) if plain is None and not any(sums) else plain

        return decrypted


class EncryptedPages(PageTable):
    """The pages of one encrypted segment: checking a column decrypts it.

    Args:
        file: whose rows they are.
        pages: nonces and tags, as the index has them.
        cipher: the segment's.
        frames: where an open turn's rows are put.
        room: where pages are decrypted.
    """

    def __init__(
        self,
        file: TensorFile,
        pages: Iterable[PageSums],
        cipher: PageCipher,
        frames: Frames,
        room: WorkRoom,
    ) -> None:
        self._cipher = cipher
        self._room = room
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

    def due(self, tensor: int, cells: Iterable[int]) -> list[int]:
        """Those pages of single heads (head * pages + page) that are not held."""
        places = self._places[tensor].data
        return [cell for cell in cells if places[cell] < 0]

    def gather(self, tensor: int, rows: NDArray[np.int64], width: int, out: RawArray) -> None:
        """Copy runs of ``width`` <= 32 rows of one head to ``out`` (n * width, D). Raises DamagedError.

        ``rows`` (n,) are the runs' first ones, head * capacity + slot. What is not held is decrypted for this alone:
        kept, it would take more time for fresh memory than it saves.
        """
        self._file.check_size()
        cells = np.unique(np.concatenate((rows >> 5, (rows + (width - 1)) >> 5)))
        frames = self._room.frames(out.shape[1], len(cells))
        self._fill(tensor, cells, frames)
        where = self._room.table(len(self._places[tensor]))
        where[cells] = np.arange(0, len(cells) * PAGE_SLOTS, PAGE_SLOTS)
        each = spread(rows, width)
        source, taken = frames.reshape(-1, out.shape[1]), where[each >> 5] + (each & 31)
        if out.flags.c_contiguous:
            np.take(source, taken, axis=0, out=out, mode="clip")  # a mode other than raise copies in place
        else:
            out[...] = source[taken]

    def read(self, tensor: int, slot: int, out: RawArray) -> None:
        """Copy slots from ``slot`` on, all heads, to ``out`` (Hkv, T, D). Raises DamagedError."""
        self._file.check_size()
        pages = page_range(slot, slot + out.shape[1])
        first = slot - pages.start * PAGE_SLOTS
        frames = self._room.frames(out.shape[2], len(pages))
        held = bool((self._by_head(tensor)[0, pages.start : pages.stop] >= 0).any())
        for head in range(len(out)):
            if held:
                self._fill(tensor, head * len(self._filled) + np.arange(pages.start, pages.stop), frames)
            else:
                self._decrypt(tensor, head, pages, frames)
            out[head] = frames.reshape(-1, out.shape[2])[first : first + out.shape[1]]

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

    def _fill(self, tensor: int, cells: NDArray[np.int64], frames: RawArray) -> None:
        """Put cells (head * pages + page), ascending, into ``frames`` (n, 32, D). Raises DamagedError."""
        places = self._places[tensor][cells]
        held = places >= 0
        if held.any():
            frames[held] = self._pool(tensor).frames[places[held]]
        for low, high in _runs(np.where(held, _NOWHERE, cells - np.arange(len(cells)))):
            if not held[low]:
                head, page = divmod(int(cells[low]), len(self._filled))
                self._decrypt(tensor, head, range(page, page + high - low), frames[low:high])

    def _decrypt(self, tensor: int, head: int, pages: range, out: RawArray) -> None:
        """Decrypt consecutive pages of a head to ``out`` (pages, 32, D), contiguous. Raises DamagedError."""
        row, column = self._file.row_bytes(tensor), self._columns[tensor] + head
        memory, size, at, total = out.data.cast("B"), PAGE_SLOTS * row, 0, 0
        offset = self._file.spec.offset(tensor, head, pages.start * PAGE_SLOTS)
        records, decrypt = self._records, self._cipher.column(column, row)
        for page, message in zip(
            pages, self._room.messages(self._file, offset, size, len(pages)), strict=True
        ):
            record = records.get(page)
            if record is None:
                raise self._file.damaged(f"page {page}", "the index has no tags for it")
            plain = decrypt(record, message)
            if plain is None:
                raise self._wrong(tensor, head, page)
            memory[at : at + len(plain)] = plain
            at += size
            total += len(plain)
        self.bytes_checked += total

    def _pool(self, tensor: int) -> FramePool:
        return self._frames.pool(self._file.spec.shapes[tensor][1])

    def _by_head(self, tensor: int) -> NDArray[np.int64]:
        """Where the columns of a tensor lie: (Hkv, pages)."""
        return self._places[tensor].reshape(-1, len(self._filled))


def _runs(marks: NDArray[Any]) -> list[tuple[int, int]]:
    """[start, stop) of the runs within which ``marks`` (n,), not empty, stay the same."""
    cuts = [0, *(np.flatnonzero(marks[1:] != marks[:-1]) + 1).tolist(), len(marks)]
    return list(pairwise(cuts))


def _filled(page: int, stop: int) -> int:
    """Slots of a page that lie before ``stop``."""
    return min(PAGE_SLOTS, stop - page * PAGE_SLOTS)

"""Segments of an encrypted agent: files of the shape of plain ones, with ciphertext in their rows.

Every turn starts on a page of its own, since a page is written once. Its rows stay in memory, in the clear, up to a
budget for all segments together, then are let go. Knows nothing of turns or SQLite; what a page is,
:mod:`encrypted_pages` knows.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from agentmem.memory.source import KVLayout
from agentmem.store.encrypted_loose import LooseEncryptedSegment
from agentmem.store.encrypted_pages import EncryptedPages, PageCipher
from agentmem.store.extents import Extent
from agentmem.store.files import opened
from agentmem.store.frames import Frames
from agentmem.store.keys import DataKey
from agentmem.store.loose_segment import LooseSegment
from agentmem.store.pages import PAGE_SLOTS
from agentmem.store.segment import LoadLive, LoadPages, Segment, SegmentSet
from agentmem.store.tensor_file import RawArray, TensorFile, TensorFileSpec, TensorWriter, raw_array
from agentmem.store.work_room import WorkRoom

HELD_BYTES = 256 << 20
"""Bytes of turns' rows that are kept in the clear for all segments together, about."""


class EncryptedSegment(Segment):
    """One open segment, read from what was decrypted of it."""

    def __init__(self, file: TensorFile, pages: EncryptedPages) -> None:
        super().__init__(file, pages)
        self.table = pages

    def check(self, tensor: int, cells: Iterable[int]) -> None:
        """What is copied is decrypted then, and so checked."""

    def copy(self, tensor: int, rows: NDArray[np.int64], width: int, out: RawArray) -> None:
        """Copy runs of ``width`` rows (head * capacity + slot) to ``out`` (n * width, D). Raises DamagedError."""
        self.table.gather(tensor, rows, width, out)
        self._bytes_copied += out.nbytes

    def read(self, tensor: int, slot: int, out: RawArray) -> None:
        """Copy slots from ``slot`` on, all heads, to ``out`` (Hkv, T, D). Raises DamagedError."""
        self.table.read(tensor, slot, out)
        self._bytes_copied += out.nbytes


class EncryptedWriter(TensorWriter):
    """Keeps an open turn's rows in memory, from where they are sealed when the turn is synced."""

    def __init__(self, path: Path, spec: TensorFileSpec, agent_id: str, table: EncryptedPages) -> None:
        super().__init__(path, spec, agent_id)
        self._table = table

    def write(self, tensor: int, slot: int, rows: RawArray) -> None:
        """Take ``rows`` (Hkv, T, D) for slots [slot, slot + T)."""
        self._table.put(tensor, slot, rows)

    def close(self) -> None:
        """Close the descriptor; what was not sealed is let go."""
        super().close()
        self._table.end_turn()


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
        raw = raw_array(torch.empty(0, dtype=layout.dtype)).dtype
        self._frames = Frames((dim for _, dim in layout.layers), raw, 2 * HELD_BYTES)
        self._room = WorkRoom(raw)

    def get(self, number: int) -> Segment:
        """An open segment. Raises DamagedError when its file is not what was made."""
        if self._frames.held > HELD_BYTES:
            self._let_go()
        return super().get(number)

    def loose(self, number: int) -> LooseSegment:
        """What there is of a segment's file, whatever happened to it."""
        pages = self._load_pages(number)
        return LooseEncryptedSegment(self.path(number), self.spec, pages, self._cipher(number))

    def start_of_turn(self, slot: int) -> int:
        """Each turn starts on a page of its own."""
        return -(-slot // PAGE_SLOTS) * PAGE_SLOTS

    def seal(self, extents: Iterable[Extent]) -> None:
        """Encrypt a turn's tokens into their files. Raises OSError."""
        for extent in extents:
            table = self._table(extent.segment)
            with opened(self.path(extent.segment), os.O_RDWR) as fd:
                sealed = table.seal(extent.slot, extent.slot + extent.count, fd)
            table.renew(sealed)

    def table(self, number: int) -> EncryptedPages:
        """A segment's pages, none of them checked yet. Raises DamagedError."""
        file = TensorFile(self.path(number), self.spec, self.agent_id)
        return EncryptedPages(file, self._load_pages(number), self._cipher(number), self._frames, self._room)

    def writer(self, number: int) -> TensorWriter:
        """A writer for a segment's slots. Raises DamagedError, OSError."""
        return EncryptedWriter(self.path(number), self.spec, self.agent_id, self._table(number))

    def drop(self, number: int) -> None:
        """Close a segment; the next ``get`` opens it anew and checks it again."""
        self._tables.pop(number, None)
        super().drop(number)

    def _opened(self, number: int) -> Segment:
        file = TensorFile(self.path(number), self.spec, self.agent_id)
        table = EncryptedPages(file, self._load_pages(number), self._cipher(number), self._frames, self._room)
        self._tables[number] = table
        return EncryptedSegment(file, table)

    def _table(self, number: int) -> EncryptedPages:
        """The pages of a segment that is open, or is opened for it."""
        self.get(number)
        return self._tables[number]

    def _cipher(self, number: int) -> PageCipher:
        bound = f"{self._key.domain} segment {number} ".encode()
        return PageCipher(self._key.cipher(f"segment {number}"), bound)

    def _let_go(self) -> None:
        """Let everything decrypted go, unless hardly more than an open turn's rows is held."""
        written = sum(table.written_bytes for table in self._tables.values())
        if self._frames.held - written <= HELD_BYTES:
            return
        fresh = self._frames.emptied()
        for table in self._tables.values():
            table.move(fresh)
        self._frames = fresh

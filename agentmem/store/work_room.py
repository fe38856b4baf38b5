"""Memory in which one agent's encrypted pages are put together and decrypted, used again for the next ones.

What an AES-GCM message is lies in two places: the ciphertext in a segment's file, the tag in the index. Ciphertexts
are read with room for a tag behind each, so that none is copied once more. Fresh memory would cost more than the
decrypting. Knows no keys and no index.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import DTypeLike, NDArray

from agentmem.store.cipher import TAG_BYTES
from agentmem.store.frames import private_memory
from agentmem.store.pages import PAGE_SLOTS
from agentmem.store.tensor_file import RawArray, TensorFile

_AT_ONCE = 64
"""Messages that are read by one call: a quarter of a megabyte, which stays in a processor's cache."""


class WorkRoom:
    """What it hands out is gone when the same is asked for again.

    Args:
        raw: the rows' type.
    """

    def __init__(self, raw: DTypeLike) -> None:
        self._raw = np.dtype(raw)
        self._messages: dict[int, tuple[list[memoryview], list[memoryview]]] = {}
        self._frames: dict[int, RawArray] = {}
        self._table = np.empty(0, dtype=np.int64)

    def messages(self, file: TensorFile, offset: int, size: int, count: int) -> Iterator[memoryview]:
        """``count`` messages whose ciphertexts, ``size`` bytes each, lie in a row from ``offset`` on.

        Each is ``size`` bytes of the file and room for a tag. Raises DamagedError.
        """
        messages, insides = self._room(size)
        for done in range(0, count, _AT_ONCE):
            few = min(_AT_ONCE, count - done)
            file.read_into(offset + done * size, insides[:few])
            yield from messages[:few]

    def frames(self, dim: int, count: int) -> RawArray:
        """Room for ``count`` pages of rows: (count, 32, dim), whatever it holds."""
        held = self._frames.get(dim)
        if held is None or len(held) < count:
            memory = private_memory(2 * count * PAGE_SLOTS * dim * self._raw.itemsize)
            held = np.frombuffer(memory, dtype=self._raw).reshape(-1, PAGE_SLOTS, dim)
            self._frames[dim] = held
        return held[:count]

    def table(self, count: int) -> NDArray[np.int64]:
        """Room for a number for each of ``count`` pages, whatever it holds."""
        if len(self._table) < count:
            self._table = np.empty(count, dtype=np.int64)
        return self._table

    def _room(self, size: int) -> tuple[list[memoryview], list[memoryview]]:
        """Messages, and their ciphertexts alone."""
        if size not in self._messages:
            step = size + TAG_BYTES
            memory = memoryview(bytearray(_AT_ONCE * step))
            messages = [memory[at : at + step] for at in range(0, len(memory), step)]
            self._messages[size] = (messages, [message[:size] for message in messages])
        return self._messages[size]

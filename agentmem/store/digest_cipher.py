"""One file of encrypted block digests: one AES-GCM message for each layer, each bound to agent, file, kind and layer.

Knows tensors and bytes; nothing of how many digests there are.
"""

from __future__ import annotations

import os
import secrets
import struct
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from agentmem.memory.source import KVLayout
from agentmem.store.cipher import TAG_BYTES
from agentmem.store.digest_log import DigestSums
from agentmem.store.failures import is_lost
from agentmem.store.files import opened, read_all
from agentmem.store.keys import DataKey
from agentmem.store.tensor_file import raw_array

_NONCE = 8
"""A file's nonce; with the layer's number it is the message's."""


class DigestCipher:
    """Writes and reads such files.

    Args:
        folder: where they lie.
        layout: shapes and dtype.
        key: the agent's own.
    """

    def __init__(self, folder: Path, layout: KVLayout, key: DataKey) -> None:
        self._folder = folder
        self._layout = layout
        self._domain = key.domain
        self._cipher = key.cipher("digests")
        self._rows = [heads * dim * layout.dtype.itemsize for heads, dim in layout.layers]

    @property
    def row_bytes(self) -> int:
        """Bytes of one block's digests in all layers."""
        return sum(self._rows)

    def encrypt(self, number: int, kind: str | None, tensors: Sequence[Tensor]) -> tuple[DigestSums, bytes]:
        """The tags and the content of a file of per-layer digests (Hkv, n, D)."""
        filled, nonce = tensors[0].shape[1], secrets.token_bytes(_NONCE)
        content, tags = [nonce], []
        for layer, tensor in enumerate(tensors):
            data = raw_array(tensor.contiguous()).data.cast("B")
            sealed = self._cipher.encrypt(*self._message(nonce, number, kind, filled, layer, data))
            content.append(sealed[:-TAG_BYTES])
            tags.append(sealed[-TAG_BYTES:])
        return DigestSums(number, filled, b"".join(tags)), b"".join(content)

    def decrypt(self, sums: DigestSums, kind: str | None, layers: range | None = None) -> list[Tensor] | None:
        """Some layers' digests (Hkv, n, D), or all; None when the file is not what was written.

        Raises OSError: the system would not open it.
        """
        wanted = range(len(self._rows)) if layers is None else layers
        starts = [_NONCE, *(_NONCE + end * sums.filled for end in accumulate(self._rows))]
        if len(sums.sums) != TAG_BYTES * len(self._rows):
            return None
        try:
            with opened(encrypted_digest_path(self._folder, sums), os.O_RDONLY) as fd:
                size = os.fstat(fd).st_size
                nonce = read_all(fd, _NONCE, 0)
                data = read_all(fd, starts[wanted.stop] - starts[wanted.start], starts[wanted.start])
        except OSError as error:
            if not is_lost(error):
                raise
            return None
        if size != starts[-1] or len(data) != starts[wanted.stop] - starts[wanted.start]:
            return None
        found = []
        for layer in wanted:
            tag = sums.sums[TAG_BYTES * layer : TAG_BYTES * (layer + 1)]
            start = starts[layer] - starts[wanted.start]
            sealed = data[start : start + self._rows[layer] * sums.filled] + tag
            plain = self._cipher.decrypt(*self._message(nonce, sums.file, kind, sums.filled, layer, sealed))
            if plain is None:
                return None
            heads, dim = self._layout.layers[layer]
            flat = torch.frombuffer(bytearray(plain), dtype=self._layout.dtype)
            found.append(flat.view(heads, sums.filled, dim))
        return found

    def _message(
        self, nonce: bytes, number: int, kind: str | None, filled: int, layer: int, data: bytes | memoryview
    ) -> tuple[bytes, bytes | memoryview, bytes]:
        bound = f"{self._domain} digests {number} {filled} {kind} {layer}".encode()
        return nonce + struct.pack("<I", layer), data, bound


def encrypted_digest_path(folder: Path, sums: DigestSums) -> Path:
    """The digest file that has these sums."""
    return folder / f"{sums.file:06d}-{sums.sums[:8].hex()}.enc"

"""Block digests of an encrypted agent: read into memory, and kept in files of one AES-GCM message each.

A file holds at most 32 blocks of all layers; what changes goes into a new file, and the old one goes once that is
committed. Its tag is what the index has in the place of checksums, so no other file fits. As with plain ones, whatever does not fit is not
there, and is computed again. Knows tensors and files; which tokens a block covers is the memory's affair.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from agentmem.errors import StoreError
from agentmem.memory.source import KVLayout, RuleStates
from agentmem.store.cipher import NONCE_BYTES, TAG_BYTES
from agentmem.store.digest_log import DigestState, DigestSums, DiskDigestLog
from agentmem.store.files import opened, read_all, write_all
from agentmem.store.keys import DataKey
from agentmem.store.tensor_file import raw_array

FILE_BLOCKS = 32


class EncryptedDigestLog(DiskDigestLog):
    """See :class:`agentmem.store.digest_log.DiskDigestLog`; ``key`` is the agent's own."""

    def __init__(
        self,
        folder: Path,
        layout: KVLayout,
        capacity: int,
        agent_id: str,
        stored: DigestState,
        states: RuleStates | None,
        key: DataKey,
    ) -> None:
        super().__init__(folder, layout, min(capacity, FILE_BLOCKS), agent_id, stored, states)
        self._cipher = key.cipher("digests")
        self._domain = key.domain
        self._kept: list[list[Tensor]] = []
        self._written: dict[int, DigestSums] = {}  # files that the index does not name yet

    def parts(self, layer: int) -> Sequence[Tensor]:
        """The digests as tensors (Hkv, n_i, D), in order; they must not be written to."""
        capacity, files = self._spec.capacity, -(-self.count // self._spec.capacity)
        return [
            kept[layer][:, : self.count - number * capacity] for number, kept in enumerate(self._kept[:files])
        ]

    def changed_sums(self) -> list[DigestSums]:
        """Write every file from ``first_changed`` on; returns their tags. Raises StoreError."""
        capacity, changed = self._spec.capacity, []
        for number in range(self.first_changed, -(-self.count // capacity)):
            filled = min(capacity, self.count - number * capacity)
            data = b"".join(raw_array(kept[:, :filled].contiguous()).tobytes() for kept in self._kept[number])
            nonce = secrets.token_bytes(NONCE_BYTES)
            sealed = self._cipher.encrypt(nonce, data, self._bound(number, filled))
            sums = DigestSums(number, filled, sealed[-TAG_BYTES:])
            try:
                with opened(encrypted_digest_path(self._folder, sums), os.O_RDWR | os.O_CREAT) as fd:
                    write_all(fd, nonce + sealed, 0)
            except OSError as error:
                raise StoreError(
                    f"block digests could not be written ({error.strerror}). Free some space and repeat."
                ) from error
            changed.append(sums)
        self._written = {sums.file: sums for sums in changed}
        return changed

    def settle(self) -> None:
        """The index now has the digests as they are: the files before them can go."""
        super().settle()
        for number, sums in self._written.items():
            keep = encrypted_digest_path(self._folder, sums).name
            for path in self._folder.glob(f"{number:06d}-*"):
                if path.name != keep:
                    with suppress(OSError):  # it stays until the next time, unread
                        path.unlink()
        self._written = {}

    def abort(self) -> None:
        """Return to the state at ``begin``; what was written meanwhile can go."""
        super().abort()
        for sums in self._written.values():
            with suppress(OSError):
                encrypted_digest_path(self._folder, sums).unlink()
        self._written = {}

    def erase_beyond(self) -> None:
        """Remove whatever lies behind the last digest."""
        whole, used = divmod(self.count, self._spec.capacity)
        del self._kept[whole + bool(used) :]
        for path in self._folder.iterdir():
            number = path.stem.partition("-")[0]
            if not number.isdigit() or int(number) >= whole + bool(used):
                path.unlink()

    def flaw(self, stored: DigestSums, *, deep: bool) -> tuple[str, str, str] | None:
        """(file, where, what) is wrong with a digest file; None when it can be used."""
        fits = self._decrypted(stored.file, stored) is not None
        label = f"{self._folder.name}/{encrypted_digest_path(self._folder, stored).name}"
        return None if fits else (label, f"blocks 0 to {stored.filled}", "it is not what was written")

    def close(self) -> None:
        """Let everything go."""
        self._kept = []

    def _unharmed(self) -> int:
        """All there are: they lie in memory of our own."""
        return self.count

    def _check_stored(self) -> int:
        """How many of the stored digests are there, unharmed; they are decrypted."""
        count = number = 0
        self._kept = []
        while count < self._stored.count:
            stored = self._stored.files.get(number)
            tensors = None if stored is None else self._decrypted(number, stored)
            if stored is None or tensors is None:
                break
            self._kept.append(tensors)
            count, number = count + stored.filled, number + 1
        return count

    def _decrypted(self, number: int, stored: DigestSums) -> list[Tensor] | None:
        size = sum(heads * dim for heads, dim in self._layout.layers) * stored.filled * self._itemsize
        try:
            with opened(encrypted_digest_path(self._folder, stored), os.O_RDONLY) as fd:
                data = read_all(fd, NONCE_BYTES + size + TAG_BYTES + 1, 0)
        except OSError:
            return None
        if len(data) != NONCE_BYTES + size + TAG_BYTES or data[-TAG_BYTES:] != stored.sums:
            return None
        bound = self._bound(number, stored.filled)
        plain = self._cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], bound)
        if plain is None:
            return None
        self.bytes_read += size
        return self._tensors(plain, stored.filled)

    def _tensors(self, plain: bytes, filled: int) -> list[Tensor]:
        tensors, at = self._empty(), 0
        for tensor, (heads, dim) in zip(tensors, self._layout.layers, strict=True):
            count = heads * filled * dim
            found = torch.frombuffer(bytearray(plain), dtype=self._layout.dtype, count=count, offset=at)
            tensor[:, :filled] = found.view(heads, filled, dim)
            at += count * self._itemsize
        return tensors

    def _empty(self) -> list[Tensor]:
        layout, capacity = self._layout, self._spec.capacity
        return [torch.zeros(heads, capacity, dim, dtype=layout.dtype) for heads, dim in layout.layers]

    def _bound(self, number: int, filled: int) -> bytes:
        return f"{self._domain} digests {number} {filled} {self._kind}".encode()

    def _write(self, number: int, slot: int, digests: Sequence[Tensor]) -> None:
        while len(self._kept) <= number:
            self._kept.append(self._empty())
        for kept, tensor in zip(self._kept[number], digests, strict=True):
            kept[:, slot : slot + tensor.shape[1]] = tensor


def encrypted_digest_path(folder: Path, sums: DigestSums) -> Path:
    """The digest file that has these sums."""
    return folder / f"{sums.file:06d}-{sums.sums[:8].hex()}.enc"

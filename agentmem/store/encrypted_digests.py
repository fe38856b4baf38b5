"""Block digests of an encrypted agent: one AES-GCM message for each layer of 32 blocks, 32 blocks to a file.

What changes goes into a new file, and the old one goes once that is committed. Its tags are what the index has in the
place of checksums, so no other file fits. As with plain ones, whatever does not fit when it is opened is not there,
and is computed again. Decrypted digests are kept up to a budget; those of a longer history are decrypted again, a few
layers at a time, whenever blocks are chosen. Knows tensors and files; which tokens a block covers is the memory's
affair.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from agentmem.errors import DamagedError, StoreError
from agentmem.memory.source import KVLayout, RuleStates
from agentmem.store.digest_cipher import DigestCipher, encrypted_digest_path
from agentmem.store.digest_log import DigestState, DigestSums, DiskDigestLog
from agentmem.store.failures import typed
from agentmem.store.files import opened, write_all
from agentmem.store.frames import private_memory
from agentmem.store.keys import DataKey

FILE_BLOCKS = 32
HELD_BYTES = 64 << 20
"""Decrypted digests that are kept, at most: 350,000 tokens of the default model."""
_GROUP_FILES = 32
"""Files that lie side by side in memory: each part is a product of its own when blocks are scored."""
_LAYERS_AT_ONCE = 4


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
        self._cipher = DigestCipher(folder, layout, key)
        self._held = max(1, HELD_BYTES // (self._cipher.row_bytes * self._spec.capacity))  # files
        self._groups: list[list[Tensor]] = []  # the first files, per layer (Hkv, blocks, D)
        self._loose: dict[int, list[Tensor]] = {}  # files behind them that are not stored as they are
        self._passing: dict[int, Tensor] = {}  # by layer: all behind the first files, as stored
        self._written: dict[int, DigestSums] = {}  # files that the index does not name yet

    def parts(self, layer: int) -> Sequence[Tensor]:
        """The digests as tensors (Hkv, n_i, D), in order; they must not be written to. Raises DamagedError."""
        held, found = min(self.count, self._held * self._spec.capacity), []
        for group in self._groups:
            here = min(held, group[layer].shape[1])
            if here:
                found.append(group[layer][:, :here])
            held -= here
        if self._files() > self._held:
            if layer not in self._passing:
                self._passing = self._decrypted_behind(layer)
            found.append(self._passing[layer])
        return found

    def truncate(self, count: int) -> None:
        """Drop digests from block ``count`` on."""
        super().truncate(count)
        self._passing = {}

    def changed_sums(self) -> list[DigestSums]:
        """Write every file from ``first_changed`` on; returns their tags. Raises StoreError, DamagedError."""
        changed = []
        for number in range(self.first_changed, self._files()):
            filled = self._filled(number)
            tensors = [tensor[:, :filled] for tensor in self._memory(number)]
            sums, data = self._cipher.encrypt(number, self._kind, tensors)
            try:
                with opened(encrypted_digest_path(self._folder, sums), os.O_RDWR | os.O_CREAT) as fd:
                    write_all(fd, data, 0)
            except OSError as error:
                raise StoreError(
                    f"block digests could not be written ({error.strerror}). Free some space and repeat."
                ) from error
            changed.append(sums)
        self._changed, self._written = changed, {sums.file: sums for sums in changed}
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
        last = self._files() - 1  # it is added to by the next turn
        self._loose = {number: kept for number, kept in self._loose.items() if number == last}

    def abort(self) -> None:
        """Return to the state at ``begin``; what was written meanwhile can go."""
        super().abort()
        for sums in self._written.values():
            with suppress(OSError):
                encrypted_digest_path(self._folder, sums).unlink()
        self._written, self._passing = {}, {}

    def erase_beyond(self) -> None:
        """Remove whatever lies behind the last digest."""
        files, blocks = self._files(), self._spec.capacity
        for place, group in enumerate(self._groups):
            for tensor in group:
                tensor[:, max(0, self.count - place * _GROUP_FILES * blocks) :] = 0
        self._loose = {number: kept for number, kept in self._loose.items() if number < files}
        self._passing = {}
        for path in self._folder.iterdir():
            number = path.stem.partition("-")[0]
            if not number.isdigit() or int(number) >= files:
                path.unlink()

    def flaw(self, stored: DigestSums, *, deep: bool) -> tuple[str, str, str] | None:
        """(file, where, what) is wrong with a digest file; None when it can be used."""
        with typed(self._agent_id, "reading block digests"):
            fits = self._cipher.decrypt(stored, self._kind) is not None
        label = f"{self._folder.name}/{encrypted_digest_path(self._folder, stored).name}"
        return None if fits else (label, f"blocks 0 to {stored.filled}", "it is not what was written")

    def close(self) -> None:
        """Let everything go."""
        self._groups, self._loose, self._passing = [], {}, {}

    def _unharmed(self) -> int:
        """All there are: they lie in memory of our own, or are authenticated whenever they are read."""
        return self.count

    def _check_stored(self) -> int:
        """How many of the stored digests are there, unharmed; all are decrypted once."""
        count = number = 0
        while count < self._stored.count:
            stored = self._stored.files.get(number)
            with typed(self._agent_id, "reading block digests"):
                tensors = None if stored is None else self._cipher.decrypt(stored, self._kind)
            if stored is None or tensors is None:
                break
            if number < self._held:
                for kept, tensor in zip(self._place(number), tensors, strict=True):
                    kept[:, : stored.filled] = tensor
            self.bytes_read += self._cipher.row_bytes * stored.filled
            count, number = count + stored.filled, number + 1
        return count

    def _write(self, number: int, slot: int, digests: Sequence[Tensor]) -> None:
        if number >= self._held and not slot:
            self._loose[number] = self._empty(self._spec.capacity)
        for kept, tensor in zip(self._memory(number), digests, strict=True):
            kept[:, slot : slot + tensor.shape[1]] = tensor
        self._passing = {}

    def _memory(self, number: int) -> list[Tensor]:
        """A file's digests in memory, to be added to. Raises DamagedError."""
        if number < self._held:
            return self._place(number)
        if number not in self._loose:
            kept, tensors = (
                self._empty(self._spec.capacity),
                self._decrypted(number, range(len(self._layout.layers))),
            )
            for place, tensor in zip(kept, tensors, strict=True):
                place[:, : tensor.shape[1]] = tensor
            self._loose[number] = kept
        return self._loose[number]

    def _place(self, number: int) -> list[Tensor]:
        """Where one of the first files lies."""
        group, at = divmod(number, _GROUP_FILES)
        while len(self._groups) <= group:
            self._groups.append(self._empty(_GROUP_FILES * self._spec.capacity))
        blocks = slice(at * self._spec.capacity, (at + 1) * self._spec.capacity)
        return [tensor[:, blocks] for tensor in self._groups[group]]

    def _decrypted_behind(self, layer: int) -> dict[int, Tensor]:
        """All digests behind the first files, of a few layers from one on."""
        layers = range(layer, min(layer + _LAYERS_AT_ONCE, len(self._layout.layers)))
        first, blocks = self._held, self._spec.capacity
        found = {
            one: torch.empty(heads, self.count - first * blocks, dim, dtype=self._layout.dtype)
            for one, (heads, dim) in enumerate(self._layout.layers)
            if one in layers
        }
        for number in range(first, self._files()):
            kept = self._loose.get(number)
            tensors = self._decrypted(number, layers) if kept is None else [kept[one] for one in layers]
            start, count = (number - first) * blocks, self._filled(number)
            for tensor, new in zip(found.values(), tensors, strict=True):
                tensor[:, start : start + count] = new[:, :count]
        return found

    def _decrypted(self, number: int, layers: range) -> list[Tensor]:
        """Layers of a stored file. Raises DamagedError: it was changed since it was opened; StoreError."""
        stored = self._known[number]
        with typed(self._agent_id, "reading block digests"):
            tensors = self._cipher.decrypt(stored, self._kind, layers)
        if tensors is None:
            label = f"{self._folder.name}/{encrypted_digest_path(self._folder, stored).name}"
            detail = "it was changed since the agent was opened"
            raise DamagedError(self._agent_id, label, f"blocks 0 to {stored.filled}", detail)
        self.bytes_read += self._cipher.row_bytes * stored.filled * len(layers) // len(self._layout.layers)
        return tensors

    def _empty(self, blocks: int) -> list[Tensor]:
        """Zeros (Hkv, blocks, D) for each layer; a part that is never written to takes no memory and no time."""
        dtype, layers = self._layout.dtype, self._layout.layers
        sizes = [heads * blocks * dim for heads, dim in layers]
        flat = torch.frombuffer(private_memory(sum(sizes) * dtype.itemsize), dtype=dtype)
        parts = zip(flat.split(sizes), layers, strict=True)
        return [part.view(heads, blocks, dim) for part, (heads, dim) in parts]

    def _files(self) -> int:
        """How many files the digests there are make."""
        return -(-self.count // self._spec.capacity)

    def _filled(self, number: int) -> int:
        """Blocks of a file."""
        return min(self._spec.capacity, self.count - number * self._spec.capacity)

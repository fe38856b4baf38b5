"""Block digests on disk: a cache in files of their own, read through maps.

Each file holds ``layers.{i}.digest`` of (Hkv, capacity, D). One xxh3-64 per (file, layer) is committed
with the turn; all are checked when a turn begins, before the first digest is handed out, and whatever does not match
is simply not there: it is computed again from the token log. So nothing here is ever synced. Knows no
block sizes: which tokens a block covers is the memory's affair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor
from xxhash import xxh3_64

from agentmem.errors import DamagedError, ShapeError, StoreError
from agentmem.memory.source import KVLayout, RuleStates
from agentmem.store.rule_states import NoRuleStates
from agentmem.store.tensor_file import (
    TensorFile,
    TensorFileSpec,
    TensorWriter,
    create_tensor_file,
    flaw_of,
    raw_array,
)

_SUM = np.dtype("<u8")


@dataclass(frozen=True)
class DigestSums:
    """Checksums of one digest file's first ``filled`` blocks: a little-endian u64 per layer."""

    file: int
    filled: int
    sums: bytes


@dataclass(frozen=True)
class DigestState:
    """What the index knows of the digests: their kind, how many there are, and what they hash to."""

    kind: str | None
    count: int
    files: Mapping[int, DigestSums]


def digest_spec(layout: KVLayout, capacity: int) -> TensorFileSpec:
    """What a digest file of ``capacity`` blocks looks like."""
    names = tuple(f"layers.{i}.digest" for i in range(len(layout.layers)))
    return TensorFileSpec(names, layout.layers, capacity, layout.dtype)


def digest_path(folder: Path, file: int) -> Path:
    """The digest file of a number."""
    return folder / f"{file:06d}.safetensors"


def sums_of(file: TensorFile, filled: int) -> bytes:
    """Checksums of a file's first ``filled`` blocks as they are now."""
    sums = []
    for layer, (heads, _) in enumerate(file.spec.shapes):
        state = xxh3_64()
        for head in range(heads):
            state.update(file.bytes_of(layer, head, 0, filled))
        sums.append(state.intdigest())
    return np.array(sums, dtype=_SUM).tobytes()


def check_digests(layout: KVLayout, digests: Sequence[Tensor]) -> int:
    """The number of blocks in per-layer digests (Hkv, n, D). Raises ShapeError when they do not fit."""
    if len(digests) != len(layout.layers):
        raise ShapeError(f"expected digests of {len(layout.layers)} layers, got {len(digests)}")
    count = digests[0].shape[1] if digests[0].ndim == 3 else 0
    for layer, ((heads, dim), tensor) in enumerate(zip(layout.layers, digests, strict=True)):
        if tensor.shape != (heads, count, dim) or tensor.dtype != layout.dtype:
            raise ShapeError(
                f"digests[{layer}]: expected ({heads}, {count}, {dim}) {layout.dtype}, "
                f"got {tuple(tensor.shape)} {tensor.dtype}"
            )
    return count


class DiskDigestLog:
    """One agent's digests; see :class:`agentmem.memory.source.DigestLog`. ``states`` None: rules keep none."""

    def __init__(
        self,
        folder: Path,
        layout: KVLayout,
        capacity: int,
        agent_id: str,
        stored: DigestState,
        states: RuleStates | None = None,
    ) -> None:
        self.states: RuleStates = states if states is not None else NoRuleStates()
        self._folder = folder
        self._layout = layout
        self._spec = digest_spec(layout, capacity)
        self._agent_id = agent_id
        self._kind = stored.kind
        self._stored = stored
        self._known = dict(stored.files)  # what the files hash to, as the index has it
        self._changed: list[DigestSums] = []
        self._count: int | None = None  # None: what is stored was not checked yet
        self._unchanged = 0  # blocks below this are as the index has them
        self._mark = (stored.kind, 0, 0)  # kind, count and unchanged that an abort returns to
        self._intact = 0  # blocks not overwritten since the mark
        self._open: dict[int, tuple[TensorFile, list[Tensor]]] = {}
        self.bytes_read = 0

    @property
    def kind(self) -> str | None:
        """Which digests are meant."""
        return self._kind

    @property
    def count(self) -> int:
        """Blocks whose digests can be read."""
        if self._count is None:
            self._count = self._unchanged = self._intact = self._check_stored()
            self._mark = (self._kind, self._count, self._count)
        return self._count

    def select(self, kind: str) -> None:
        """Say which digests are meant; another kind empties the log."""
        if kind != self._kind:
            self._count = self._unchanged = 0
            self._kind = kind

    def append(self, digests: Sequence[Tensor]) -> None:
        """Add n blocks after the last: per layer (Hkv, n, D), CPU, in the layout's dtype."""
        added = check_digests(self._layout, digests)
        done = 0
        self._intact = min(self._intact, self.count)
        while done < added:
            file, slot = divmod(self.count + done, self._spec.capacity)
            here = min(added - done, self._spec.capacity - slot)
            try:
                self._write(file, slot, [tensor[:, done : done + here] for tensor in digests])
            except OSError as error:
                raise StoreError(
                    f"{added} block digests could not be written ({error.strerror}). Free some space and repeat."
                ) from error
            done += here
        self._count = self.count + added

    def truncate(self, count: int) -> None:
        """Drop digests from block ``count`` on."""
        self._count = min(self.count, max(count, 0))
        self._unchanged = min(self._unchanged, self._count)

    def parts(self, layer: int) -> Sequence[Tensor]:
        """The digests as mapped tensors (Hkv, n_i, D), in order; they must not be written to."""
        found, left, file = [], self.count, 0
        while left > 0:
            here = min(left, self._spec.capacity)
            tensor_file, tensors = self._opened(file)
            tensor_file.check_size()
            found.append(tensors[layer][:, :here])
            left, file = left - here, file + 1
        return found

    def begin(self) -> None:
        """Remember what an abort returns to, without what was changed in the files behind our back."""
        self._count = self._unharmed()
        self._unchanged = min(self._unchanged, self._count)
        self._intact = self.count
        self._mark = (self._kind, self.count, self._unchanged)

    def abort(self) -> None:
        """Return to the state at ``begin``, as far as its digests were not overwritten since."""
        self._kind, count, unchanged = self._mark
        self._count = min(count, self._intact)
        self._unchanged = min(unchanged, self._intact)

    @property
    def first_changed(self) -> int:
        """The first file that is not as the index has it."""
        return min(self.count, self._unchanged) // self._spec.capacity

    def changed_sums(self) -> list[DigestSums]:
        """Checksums of every file from ``first_changed`` on."""
        capacity, first = self._spec.capacity, self.first_changed
        changed = []
        for file in range(first, -(-self.count // capacity)):
            filled = min(capacity, self.count - file * capacity)
            changed.append(DigestSums(file, filled, sums_of(self._opened(file)[0], filled)))
        self._changed = changed
        return changed

    def settle(self) -> None:
        """The index now has the digests as they are."""
        files = -(-self.count // self._spec.capacity)
        known = {file: sums for file, sums in self._known.items() if file < files}
        self._known = {**known, **{sums.file: sums for sums in self._changed}}
        self._changed = []
        self._unchanged = self.count

    def erase_beyond(self) -> None:
        """Overwrite with zeros, or remove, whatever lies behind the last digest: it may tell of forgotten text."""
        first, used = divmod(self.count, self._spec.capacity)
        for path in self._folder.iterdir():
            number = int(path.stem) if path.stem.isdigit() else -1
            if number == first and used and flaw_of(path, self._spec) is None:
                writer = TensorWriter(path, self._spec, self._agent_id)
                writer.write_zeros([(used, self._spec.capacity)])
                writer.close()
            elif number >= first:
                self._forget_file(number)
                path.unlink()

    def flaw(self, stored: DigestSums, *, deep: bool) -> tuple[str, str, str] | None:
        """(file, where, what) is wrong with a digest file; None when it can be used."""
        path = digest_path(self._folder, stored.file)
        label = f"{path.parent.name}/{path.name}"
        try:
            file = TensorFile(path, self._spec, self._agent_id)
        except DamagedError as error:
            return label, error.where, "it cannot be used"
        fits = not deep or sums_of(file, stored.filled) == stored.sums
        file.close()
        return None if fits else (label, f"blocks 0 to {stored.filled}", "the checksum differs")

    def close(self) -> None:
        """Close all files."""
        for number in list(self._open):
            self._forget_file(number)

    def _unharmed(self) -> int:
        """How many digests there are, from the first on, that are as they were committed."""
        count, capacity = self.count, self._spec.capacity
        for number in range(-(-min(count, self._unchanged) // capacity)):
            known = self._known.get(number)
            try:
                file = self._opened(number)[0]
                file.check_size()
                if known is not None and sums_of(file, known.filled) != known.sums:
                    return number * capacity
            except DamagedError:
                return number * capacity
        return count

    def _check_stored(self) -> int:
        """How many of the stored digests are there, unharmed."""
        capacity, count = self._spec.capacity, 0
        while count < self._stored.count:
            number = count // capacity
            stored = self._stored.files.get(number)
            try:
                file = self._opened(number)[0]
                if stored is None or sums_of(file, stored.filled) != stored.sums:
                    break
            except DamagedError:
                break
            self.bytes_read += sum(h * d for h, d in self._layout.layers) * stored.filled * self._itemsize
            count += stored.filled
        return count

    @property
    def _itemsize(self) -> int:
        return self._layout.dtype.itemsize

    def _opened(self, number: int) -> tuple[TensorFile, list[Tensor]]:
        pair = self._open.get(number)
        if pair is None:
            file = TensorFile(digest_path(self._folder, number), self._spec, self._agent_id)
            pair = self._open[number] = (file, [file.tensor(i) for i in range(len(self._layout.layers))])
        return pair

    def _forget_file(self, number: int) -> None:
        pair = self._open.pop(number, None)
        if pair is not None:
            pair[1].clear()
            pair[0].close()

    def _write(self, number: int, slot: int, digests: Sequence[Tensor]) -> None:
        path = digest_path(self._folder, number)
        if number not in self._open and flaw_of(path, self._spec) is not None:
            path.unlink(missing_ok=True)  # damaged or missing: nothing in it counts
            create_tensor_file(path, self._spec)
        writer = TensorWriter(path, self._spec, self._agent_id)
        try:
            for layer, tensor in enumerate(digests):
                writer.write(layer, slot, raw_array(tensor))
        finally:
            writer.close()

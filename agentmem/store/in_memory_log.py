"""A token log in plain tensors: the oracle of the one on disk.

Knows nothing of turns; the store tells it what is committed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from agentmem.errors import InputError, ShapeError, StoreError
from agentmem.memory.source import KVLayout


class InMemoryTokenLog:
    """Raw K/V of one branch; see :class:`agentmem.memory.source.TokenLog`."""

    def __init__(self, layout: KVLayout) -> None:
        self._layout = layout
        self._keys = _no_tokens(layout)
        self._values = _no_tokens(layout)
        self._committed = 0
        self._open = False
        self._dead: list[tuple[int, int]] = []

    @property
    def layout(self) -> KVLayout:
        """Shapes and dtype of what is kept."""
        return self._layout

    @property
    def length(self) -> int:
        """Tokens that can be read, the open turn's included."""
        return self._keys[0].shape[1]

    @property
    def committed(self) -> int:
        """Tokens that belong to committed turns."""
        return self._committed

    @property
    def dead(self) -> Sequence[tuple[int, int]]:
        """Forgotten ranges [start, stop), sorted, disjoint; their K/V read as zeros."""
        return tuple(self._dead)

    def append(self, keys_raw: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Add T tokens to the open turn: per layer (Hkv, T, D)."""
        if not self._open:
            raise StoreError("tokens were appended outside a turn; call begin() first")
        count = keys_raw[0].shape[1] if len(keys_raw) and keys_raw[0].ndim == 3 else 0
        for tensors in (keys_raw, values):
            found = [(tuple(tensor.shape), tensor.dtype) for tensor in tensors]
            wanted = [((heads, count, dim), self._layout.dtype) for heads, dim in self._layout.layers]
            if found != wanted:
                raise ShapeError(f"expected K/V of {wanted}, got {found}")
        self._keys = _joined(self._keys, keys_raw)
        self._values = _joined(self._values, values)

    def truncate(self, length: int) -> None:
        """Drop the open turn's tokens from ``length`` on; ``length`` >= committed."""
        if not self._committed <= length <= self.length:
            raise InputError(
                f"cannot truncate to {length}: the open turn holds tokens {self._committed} to {self.length}"
            )
        self._keys = [tensor[:, :length] for tensor in self._keys]
        self._values = [tensor[:, :length] for tensor in self._values]

    def read(
        self, layer: int, start: int, stop: int, keys_out: Tensor | None, values_out: Tensor | None
    ) -> None:
        """Copy tokens [start, stop) of all heads into (Hkv, stop - start, D) buffers."""
        if not 0 <= start <= stop <= self.length:
            raise InputError(f"tokens {start} to {stop} are not in the log, which holds {self.length}")
        for out, tensors in ((keys_out, self._keys), (values_out, self._values)):
            if out is not None:
                _fill(out, tensors[layer][:, start:stop])

    def gather(self, layer: int, tokens: Tensor, keys_out: Tensor | None, values_out: Tensor | None) -> None:
        """Copy chosen tokens per head: ``tokens`` (Hkv, S) int64 -> (Hkv, S, D) buffers."""
        heads, dim = self._layout.layers[layer]
        if tokens.ndim != 2 or len(tokens) != heads or tokens.dtype != torch.int64:
            raise ShapeError(f"tokens: expected ({heads}, S) int64, got {tuple(tokens.shape)} {tokens.dtype}")
        if tokens.numel() and (int(tokens.min()) < 0 or int(tokens.max()) >= self.length):
            raise InputError(
                f"tokens {int(tokens.min())} to {int(tokens.max())} are not in the log, "
                f"which holds {self.length}"
            )
        for out, tensors in ((keys_out, self._keys), (values_out, self._values)):
            if out is not None:
                index = tokens[..., None].expand(-1, -1, dim)
                _fill(out, tensors[layer].gather(1, index))

    def begin(self) -> None:
        """Let tokens be appended."""
        self._open = True

    def abort(self) -> None:
        """Drop the open turn's tokens."""
        self.truncate(self._committed)
        self._open = False

    def settle(self) -> tuple[list[Tensor], list[Tensor]]:
        """The open turn was committed; returns its keys and values per layer."""
        start, self._committed, self._open = self._committed, self.length, False
        return [t[:, start:].clone() for t in self._keys], [t[:, start:].clone() for t in self._values]

    def load(
        self,
        turns: Sequence[tuple[Sequence[Tensor], Sequence[Tensor]]],
        dead: Sequence[tuple[int, int]],
    ) -> None:
        """Hold exactly these turns' keys and values."""
        self._keys, self._values = _no_tokens(self._layout), _no_tokens(self._layout)
        for keys, values in turns:
            self._keys = _joined(self._keys, keys)
            self._values = _joined(self._values, values)
        self._committed, self._dead = self.length, list(dead)


def _no_tokens(layout: KVLayout) -> list[Tensor]:
    return [torch.empty(heads, 0, dim, dtype=layout.dtype) for heads, dim in layout.layers]


def _joined(old: Sequence[Tensor], new: Sequence[Tensor]) -> list[Tensor]:
    return [torch.cat((a, b.detach()), dim=1) for a, b in zip(old, new, strict=True)]


def _fill(out: Tensor, found: Tensor) -> None:
    if out.shape != found.shape or out.dtype != found.dtype:
        raise ShapeError(
            f"buffer: expected {tuple(found.shape)} {found.dtype}, got {tuple(out.shape)} {out.dtype}"
        )
    out.copy_(found)

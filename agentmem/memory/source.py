"""What the memory needs from wherever an agent's tokens are kept.

Protocols only: ``memory`` defines them, ``store`` implements them, so cold blocks can be fetched in
the middle of attention without ``memory`` knowing files. All tensors here are on the CPU; K/V are in
the layout's dtype. ``layer`` counts the model's attention layers from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class KVLayout:
    """The shape of one token's K/V: ``layers[i]`` is (Hkv, D) of layer i; ``dtype`` of every element."""

    layers: tuple[tuple[int, int], ...]
    dtype: torch.dtype

    @property
    def bytes_per_token(self) -> int:
        """Bytes of raw K and V that one token takes, over all layers."""
        return sum(2 * heads * dim for heads, dim in self.layers) * self.dtype.itemsize


class TokenLog(Protocol):
    """The raw keys and values of one agent's current branch, addressed by token position.

    Positions [0, committed) belong to finished turns; [committed, length) to the open turn and
    vanish unless it is committed. Reading verifies stored bytes before they are handed out.
    """

    @property
    def layout(self) -> KVLayout:
        """Shapes and dtype of what is kept."""
        ...

    @property
    def length(self) -> int:
        """Tokens that can be read."""
        ...

    @property
    def committed(self) -> int:
        """Tokens that belong to committed turns."""
        ...

    @property
    def dead(self) -> Sequence[tuple[int, int]]:
        """Forgotten ranges [start, stop), sorted, disjoint; their K/V read as zeros."""
        ...

    def append(self, keys_raw: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Add T tokens to the open turn: per layer (Hkv, T, D). T may be 0; nothing is synced."""
        ...

    def truncate(self, length: int) -> None:
        """Drop the open turn's tokens from ``length`` on; ``length`` >= committed."""
        ...

    def read(
        self, layer: int, start: int, stop: int, keys_out: Tensor | None, values_out: Tensor | None
    ) -> None:
        """Copy tokens [start, stop) of all heads into (Hkv, stop - start, D) buffers."""
        ...

    def gather(self, layer: int, tokens: Tensor, keys_out: Tensor | None, values_out: Tensor | None) -> None:
        """Copy chosen tokens per head: ``tokens`` (Hkv, S) int64 -> (Hkv, S, D) buffers."""
        ...


class DigestLog(Protocol):
    """The digests of the current branch's blocks, one (Hkv, D) vector per block and layer.

    A cache: what is missing or damaged is counted as not there, and is computed again from the log.
    """

    @property
    def count(self) -> int:
        """Blocks whose digests can be read."""
        ...

    def select(self, kind: str) -> None:
        """Say which digests are meant (rule, sinks, block size); another kind empties the log."""
        ...

    def append(self, digests: Sequence[Tensor]) -> None:
        """Add n blocks after the last: per layer (Hkv, n, D) in the layout's dtype."""
        ...

    def truncate(self, count: int) -> None:
        """Drop digests from block ``count`` on."""
        ...

    def parts(self, layer: int) -> Sequence[Tensor]:
        """The digests as tensors (Hkv, n_i, D) whose concatenation along dim 1 is all ``count``."""
        ...

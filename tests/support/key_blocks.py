"""Blocks over plain tensors, for selection rules without a log."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from agentmem.memory.rooms import Rooms
from agentmem.memory.selectors import Selector


class KeyBlocks:
    """A BlockView: keys (Hkv, N, L, D), the rule's digests, dead (N, L) bool or None.

    Lent memory is full of NaN each time it is asked for, so what is left in it from before must not matter.
    """

    def __init__(
        self, keys_raw: Tensor, selector: Selector, dead: Tensor | None = None, layer: int = 0
    ) -> None:
        self.layer = layer
        self.asked: list[int] = []
        self._keys_raw, self._dead = keys_raw, dead
        joined = (-1, selector.digest_span * keys_raw.shape[2])
        living = None if dead is None else ~dead.reshape(joined)
        self._digests = selector.digest(keys_raw.reshape(len(keys_raw), *joined, keys_raw.shape[3]), living)
        self._rooms = Rooms(keys_raw.device)

    @property
    def count(self) -> int:
        """N."""
        return self._keys_raw.shape[1]

    @property
    def digested(self) -> int:
        """N / S."""
        return self._digests.shape[1]

    @property
    def alive(self) -> Tensor | None:
        """Blocks with a living token."""
        return None if self._dead is None else ~self._dead.all(-1)

    def digests(self) -> Sequence[Tensor]:
        """In three parts of different sizes, as a store would map them."""
        cuts = (0, self.digested // 3, self.digested - 1, self.digested)
        parts = [self._digests[:, start:stop] for start, stop in pairwise(cuts)]
        return [part for part in parts if part.shape[1]]

    def keys_raw(self, blocks: Tensor) -> Tensor:
        """Keys of chosen blocks."""
        self.asked.append(blocks.shape[1])
        return torch.stack([self._keys_raw[head, row] for head, row in enumerate(blocks)])

    def dead_tokens(self, blocks: Tensor) -> Tensor | None:
        """Flags of chosen blocks."""
        return None if self._dead is None else self._dead[blocks]

    def room(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Reused memory."""
        return self._rooms.room(name, shape, dtype).fill_(torch.nan)


def random_case(
    seed: int, N: int, *, dead: bool = False, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Queries (2, 6, 16) fp32, keys (2, N, 8, 16), and which of their tokens are forgotten, if any.

    Every seventh block is forgotten whole, and about every third token elsewhere; their keys are zeros.
    """
    generator = torch.Generator().manual_seed(seed)
    keys_raw = torch.randn(2, N, 8, 16, generator=generator)
    queries = torch.randn(2, 6, 16, generator=generator)
    flags = None
    if dead:
        flags = torch.rand(N, 8, generator=generator) < 0.3
        flags[::7] = True
        keys_raw[:, flags] = 0
    return queries, keys_raw.to(dtype), flags

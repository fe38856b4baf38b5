"""A full layer's working set where two rotations meet: far tokens by one, the window by another.

A key is stored as a pair of halves: a far token's is [rotated, 0], a window token's [0, rotated]. A query
is [rotated as far tokens meet it, rotated at its own place], so one dot product picks the right rotation
for every key, and one attention call gives the joint softmax over both. Values have a second half of
zeros, since fused attention wants them as wide as keys. Knows no log and no masks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem.memory.rotation import LayerSpec


class PairBuffer:
    """Pairs of one layer: (Hkv, capacity, 2 D), the first ``used`` are valid."""

    def __init__(self, spec: LayerSpec, capacity: int, dtype: torch.dtype, device: torch.device) -> None:
        shape = (spec.num_kv_heads, capacity, 2 * spec.head_dim)
        self.spec = spec
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.dead = torch.zeros(shape[:2], dtype=torch.bool, device=device)
        self.any_dead = False
        self.used = 0

    def clear(self) -> None:
        """Empty the buffer; its memory stays."""
        if self.any_dead:
            self.dead.zero_()
        self.any_dead = False
        self.used = 0

    def values_room(self, count: int) -> Tensor | None:
        """Values lie apart from each other here, so none are read in place."""
        return None

    def mark_dead(self, flags: Tensor) -> None:
        """Say which of the next tokens were forgotten: (Hkv or 1, n) bool, before they are added."""
        self.dead[:, self.used : self.used + flags.shape[1]] = flags
        self.any_dead = True

    def add_far(self, keys_raw: Tensor, values: Tensor | None, positions: Tensor) -> None:
        """Append far tokens (Hkv, n, D), rotated to ``positions`` (n,)."""
        self._add(keys_raw, values, positions, far=True)

    def add_near(self, keys_raw: Tensor, values: Tensor | None, positions: range) -> None:
        """Append window tokens (Hkv, n, D), rotated to ``positions``."""
        self._add(keys_raw, values, positions, far=False)

    def pair_queries(self, q_raw: Tensor, far: Tensor, near: range) -> Tensor:
        """Queries (1, Hq, T, D) as pairs (1, Hq, T, 2 D), rotated to ``far`` (T,) and to ``near``."""
        rotary = self.spec.rotary
        if rotary is None:
            return torch.cat([q_raw, q_raw], dim=-1)
        return torch.cat([rotary.rotate(q_raw, far), rotary.rotate(q_raw, near)], dim=-1)

    def _add(self, keys_raw: Tensor, values: Tensor | None, positions: Tensor | range, *, far: bool) -> None:
        assert values is not None, "nothing is read in place here"
        D = self.spec.head_dim
        start, stop = self.used, self.used + keys_raw.shape[1]
        own, other = (slice(0, D), slice(D, None)) if far else (slice(D, None), slice(0, D))
        rotary = self.spec.rotary
        if rotary is None:
            self.keys[:, start:stop, own].copy_(keys_raw)
        else:
            rotary.rotate(keys_raw, positions, self.keys[:, start:stop, own])
        self.keys[:, start:stop, other].zero_()
        self.values[:, start:stop, :D].copy_(values)
        self.used = stop

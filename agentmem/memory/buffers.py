"""One layer's working set: rotated keys and values, allocated once, written in place.

Index i of a buffer is in-window position i, so keys are rotated once, when they enter, and decoding
attends to a prefix of the buffer without moving anything. Knows no log and chooses no blocks.
First-touching fresh memory can cost many times the arithmetic done on it, so buffers live in a
:class:`Workspace` that turns (also of different agents) hand on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from agentmem.config import MemoryConfig
from agentmem.memory.pair_buffer import PairBuffer
from agentmem.memory.rooms import Rooms
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import Selector
from agentmem_kernels import Kept, accelerated, enter, in_one_call, rotate_into


class LayerBuffer:
    """Rotated keys and values of one layer: (Hkv, capacity, D), the first ``used`` are valid."""

    def __init__(self, spec: LayerSpec, capacity: int, dtype: torch.dtype, device: torch.device) -> None:
        shape = (spec.num_kv_heads, capacity, spec.head_dim)
        self.spec = spec
        self._rotation = None if spec.rotary is None else spec.rotary.rotation
        self.keys_rot = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
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
        """On the CPU, where the next ``count`` values will lie, so that they can be read in place."""
        return self.values[:, self.used : self.used + count] if self.values.device.type == "cpu" else None

    def mark_dead(self, flags: Tensor) -> None:
        """Say which of the next tokens were forgotten: (Hkv or 1, n) bool, before they are added."""
        self.dead[:, self.used : self.used + flags.shape[1]] = flags
        self.any_dead = True

    def enter(
        self, queries_raw: Tensor, keys_raw: Tensor, values: Tensor, staging: Staging, at: int
    ) -> Tensor:
        """Append new tokens (Hkv, T, D), and stage them and their queries (1, Hq, T, D) from index ``at`` on.

        Returns the queries rotated to where their tokens stand. One launch on a GPU; one call in C for a few tokens.
        """
        layer = self.spec.index
        new = (queries_raw[0], keys_raw, values)
        if in_one_call(*new, self._rotation):
            start, self.used = self.used, self.used + keys_raw.shape[1]
            rooms = (self.keys_rot, self.values)
            return enter(*new, self._rotation, start, *rooms, kept=staging.rooms(layer), at=at)[None]
        staging.put(layer, at, queries_raw[0], keys_raw, values)
        rotated = self.rotate_queries(queries_raw, self.used)
        self.extend(keys_raw, values)
        return rotated

    def extend(self, keys_raw: Tensor, values: Tensor | None) -> None:
        """Append (Hkv, T, D) raw keys, rotated to their index, and values (None: already in place)."""
        start, stop = self.used, self.used + keys_raw.shape[1]
        if values is not None and accelerated(keys_raw):
            self.used = stop
            rooms = (self.keys_rot[:, start:stop], self.values[:, start:stop])
            rotate_into(keys_raw, values, self._rotation, start, *rooms)
            return
        if self.spec.rotary is None:
            self.keys_rot[:, start:stop].copy_(keys_raw)
        else:
            self.spec.rotary.rotate(keys_raw, range(start, stop), self.keys_rot[:, start:stop])
        if values is not None:
            self.values[:, start:stop].copy_(values)
        self.used = stop

    def rotate_queries(self, queries_raw: Tensor, start: int) -> Tensor:
        """Queries (..., T, D) rotated to positions start, start + 1, ..."""
        if self.spec.rotary is None:
            return queries_raw
        return self.spec.rotary.rotate(queries_raw, range(start, start + queries_raw.shape[-2]))


class Staging:
    """Raw keys, values and queries of the newest tokens, until they are written to the log."""

    def __init__(
        self, specs: Sequence[LayerSpec], capacity: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        def room(heads: int, dim: int) -> Tensor:
            return torch.empty((heads, capacity, dim), dtype=dtype, device=device)

        self.capacity = capacity
        self.keys_raw = [room(spec.num_kv_heads, spec.head_dim) for spec in specs]
        self.values = [room(spec.num_kv_heads, spec.head_dim) for spec in specs]
        self.queries_raw = [room(spec.num_q_heads, spec.head_dim) for spec in specs]

    def rooms(self, layer: int) -> Kept:
        """One layer's rooms, whole."""
        return Kept(self.queries_raw[layer], self.keys_raw[layer], self.values[layer])

    def put(self, layer: int, at: int, queries_raw: Tensor, keys_raw: Tensor, values: Tensor) -> None:
        """Keep T tokens' (H, T, D) projections at index ``at``."""
        stop = at + keys_raw.shape[1]
        self.keys_raw[layer][:, at:stop].copy_(keys_raw)
        self.values[layer][:, at:stop].copy_(values)
        self.queries_raw[layer][:, at:stop].copy_(queries_raw)


@dataclass(frozen=True)
class WorkspaceSize:
    """How much memory a configuration needs; equal sizes can share a workspace."""

    dense: int
    """The longest context that is attended to in full, new tokens included."""
    past: int
    """Tokens of the past beside which new ones stand, beyond that length."""
    step: int
    """New tokens that may be appended before the buffer is rebuilt; so many can be staged."""
    scratch: int
    """Tokens read at once, at most."""
    pairs: int = 0
    """Length of the pair buffers of full layers; 0 where the placement has none."""
    furthest: int = 0
    """Positions that a placement uses beside the plain buffers."""

    @classmethod
    def of(cls, config: MemoryConfig, selector: Selector) -> WorkspaceSize:
        """What this configuration needs with that rule."""
        digested = config.block_tokens * selector.digest_span
        past = config.budget + digested - 1
        scratch = max(
            config.dense_limit, past, selector.candidate_factor * config.recall_tokens, 64 * digested
        )
        return cls(
            dense=config.dense_limit,
            past=past,
            step=config.chunk_tokens + config.reselect_every,
            scratch=scratch,
        )

    def capacity(self, spec: LayerSpec) -> int:
        """Length of a layer's plain buffer."""
        past = self.past if spec.window is None else spec.window - 1
        return max(self.dense, past + self.step)

    def positions(self, spec: LayerSpec) -> int:
        """How many positions a layer uses; index and position are one in a plain buffer."""
        return max(self.furthest, self.capacity(spec))


class Workspace:
    """All buffers a turn needs, for one binding and one size. Used by one turn at a time."""

    def __init__(
        self, specs: Sequence[LayerSpec], size: WorkspaceSize, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.size = size
        self.specs = specs
        self.device = device
        self.rooms = Rooms(device)
        self.rows = Rooms(torch.device("cpu"))
        """For a log whose rows are not what the model made; of a size that does not depend on the history."""
        self.layers = [LayerBuffer(spec, size.capacity(spec), dtype, device) for spec in specs]
        self.pairs = {
            spec.index: PairBuffer(spec, size.pairs, dtype, device)
            for spec in specs
            if size.pairs and spec.window is None
        }
        self.staging = Staging(specs, size.step, dtype, device)
        widest = max(
            spec.num_kv_heads * spec.head_dim * max(size.scratch, size.capacity(spec)) for spec in specs
        )
        self._keys = torch.empty(widest, dtype=dtype)
        loose = device.type != "cpu" or size.pairs  # elsewhere values are read into their places
        self._values = torch.empty(widest if loose else 0, dtype=dtype)

    def keys_scratch(self, spec: LayerSpec, tokens: int) -> Tensor:
        """CPU room for (Hkv, tokens, D) raw keys; valid until asked for again."""
        return self._keys[: spec.num_kv_heads * tokens * spec.head_dim].view(
            spec.num_kv_heads, tokens, spec.head_dim
        )

    def values_scratch(self, spec: LayerSpec, tokens: int) -> Tensor:
        """CPU room for (Hkv, tokens, D) values that cannot be read in place."""
        return self._values[: spec.num_kv_heads * tokens * spec.head_dim].view(
            spec.num_kv_heads, tokens, spec.head_dim
        )

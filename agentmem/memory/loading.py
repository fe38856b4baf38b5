"""Reading tokens of the log into the buffers of one turn. Knows no rule and gives no positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from agentmem.memory.buffers import Workspace
from agentmem.memory.log_blocks import BlocksState
from agentmem.memory.resident import Resident
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.source import TokenLog

Enter = Callable[[Tensor, Tensor | None], None]
"""Appends raw keys and values (Hkv, n, D), on the device, to a buffer; None: the values are in place."""


class Target(Protocol):
    """A buffer that tokens are loaded into."""

    def values_room(self, count: int) -> Tensor | None:
        """CPU memory (Hkv, count, D) where the next values may be read in place; None: there is none."""
        ...

    def mark_dead(self, flags: Tensor) -> None:
        """Say which of the next tokens were forgotten: (Hkv or 1, n) bool."""
        ...


class Loader:
    """Reads one agent's log through one workspace, and blocks through a slab if there is one."""

    def __init__(self, log: TokenLog, workspace: Workspace, resident: Resident | None = None) -> None:
        self._log = log
        self._workspace = workspace
        self._resident = resident

    def span(
        self, spec: LayerSpec, start: int, stop: int, state: BlocksState, target: Target, enter: Enter
    ) -> None:
        """Append tokens [start, stop), the same for all heads."""
        if self._resident is not None and spec.window is None:
            blocks = state.grid.whole_inside(start, stop)
            if blocks:
                self._mark_dead(torch.arange(start, stop)[None], state, target)
                enter(*self._around(self._resident, spec, start, stop, blocks, state))
                return
        if stop > start:
            keys_raw, values, loose = self._room(spec, target, stop - start)
            self._log.read(spec.index, start, stop, keys_raw, values)
            self._mark_dead(torch.arange(start, stop)[None], state, target)
            self._hand_over(enter, keys_raw, loose)

    def chosen(
        self, spec: LayerSpec, blocks: Tensor, state: BlocksState, target: Target, enter: Enter
    ) -> None:
        """Append the tokens of chosen blocks, (Hkv, K) per head."""
        blocks = blocks.cpu()
        tokens = state.tokens(blocks)
        if self._resident is not None:
            self._mark_dead(tokens, state, target)
            keys = self._resident.keys_raw(spec, blocks, state.tokens).flatten(1, 2)
            enter(keys, self._resident.values(spec, blocks, state.tokens).flatten(1, 2))
            return
        keys_raw, values, loose = self._room(spec, target, tokens.shape[1])
        self._log.gather(spec.index, tokens, keys_raw, values)
        self._mark_dead(tokens, state, target)
        self._hand_over(enter, keys_raw, loose)

    def _around(
        self, resident: Resident, spec: LayerSpec, start: int, stop: int, blocks: range, state: BlocksState
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of tokens [start, stop): whole blocks through the slab, the few tokens beside them read.

        One tensor each, so that what is done with it does not depend on where it came from.
        """
        low, high = state.grid.bounds(blocks[0])[0], state.grid.bounds(blocks[-1])[1]
        heads, before = spec.num_kv_heads, low - start
        edges = [
            torch.empty(heads, before + stop - high, spec.head_dim, dtype=self._log.layout.dtype)
            for _ in range(2)
        ]
        self._log.read(spec.index, start, low, *(edge[:, :before] for edge in edges))
        self._log.read(spec.index, high, stop, *(edge[:, before:] for edge in edges))
        ids = torch.arange(blocks.start, blocks.stop).expand(heads, -1)
        inner = (resident.keys_raw(spec, ids, state.tokens), resident.values(spec, ids, state.tokens))
        keys, values = (
            torch.cat([edge[:, :before], whole.flatten(1, 2), edge[:, before:]], dim=1)
            for edge, whole in zip((edge.to(self._workspace.device) for edge in edges), inner, strict=True)
        )
        return keys, values

    def _room(self, spec: LayerSpec, target: Target, count: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """CPU memory for raw keys and for values; the values again, unless they are in place already."""
        keys_raw, in_place = self._workspace.keys_scratch(spec, count), target.values_room(count)
        if in_place is not None:
            return keys_raw, in_place, None
        values = self._workspace.values_scratch(spec, count)
        return keys_raw, values, values

    def _mark_dead(self, tokens: Tensor, state: BlocksState, target: Target) -> None:
        flags = state.dead_flags(tokens)
        if flags is not None and bool(flags.any()):
            target.mark_dead(flags.to(self._workspace.device))

    def _hand_over(self, enter: Enter, keys_raw: Tensor, values: Tensor | None) -> None:
        device = self._workspace.device
        enter(keys_raw.to(device), None if values is None else values.to(device))

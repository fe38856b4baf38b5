"""Reference placements: a window of exactly ``window_tokens`` per query, and far tokens at a capped distance.

Every query sees the newest ``window_tokens`` tokens, itself counted, at their true distances, and beyond
them what the rule keeps: sinks, recalled blocks, and for InfLLM the tokens that have left the window but
lie in no whole block yet. One softmax covers both. A token is seen once: as a window token by queries
nearer than the window, as a far one by the others. Dense chunks and sliding layers are placed by
:class:`OrderedPlacement`, where positions are the true ones. Chooses nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from agentmem.config import MemoryConfig
from agentmem.memory.buffers import Workspace, WorkspaceSize
from agentmem.memory.layout import Layout
from agentmem.memory.loading import Loader
from agentmem.memory.pair_buffer import PairBuffer
from agentmem.memory.placements.base import Choose, Placement, Sight
from agentmem.memory.placements.ordered import OrderedPlacement
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import Selector

_ALWAYS_FAR = -(1 << 40)
"""Stands for the token number of recalled blocks: beyond every window."""

Positions = Callable[[Tensor, MemoryConfig], Tensor]
"""Token numbers (n,) int64 -> positions (n,) int64."""


@dataclass(frozen=True)
class FarRule:
    """One reference placement, by name."""

    name: str
    query: Positions
    """Where a query stands when it meets far tokens."""
    key: Positions
    """Where a sink stands; recalled blocks and tokens that left the window stand at 0."""
    furthest: Callable[[MemoryConfig], int]
    """The largest position that ``query`` and ``key`` give."""
    keeps_leaving: bool
    """Whether tokens that left the window stay in sight until their block is whole."""

    def size(self, config: MemoryConfig, selector: Selector) -> WorkspaceSize:
        """Buffers of pairs for full layers; plain ones for dense chunks and sliding layers."""
        plain = WorkspaceSize.of(config, selector)
        window = config.window_tokens
        far = config.sink_tokens + config.recall_tokens
        leaving = config.block_tokens * selector.digest_span - 1 + plain.step if self.keeps_leaving else 0
        near = window - 1 + plain.step
        positions = max(config.dense_limit, near, self.furthest(config) + 1)
        return WorkspaceSize(
            plain.dense,
            0,
            plain.step,
            max(plain.scratch, near),
            pairs=far + leaving + near,
            furthest=positions,
        )

    def distance(self, config: MemoryConfig) -> int:
        """The distance of all recalled tokens."""
        return config.window_tokens - 1

    def start(self, config: MemoryConfig, workspace: Workspace, loader: Loader) -> Placement:
        """A placement for one turn."""
        return FarPlacement(self, config, workspace, loader)


def _one_distance(tokens: Tensor, config: MemoryConfig) -> Tensor:
    return torch.full_like(tokens, config.window_tokens - 1)


def _at_zero(tokens: Tensor, config: MemoryConfig) -> Tensor:
    return torch.zeros_like(tokens)


def _in_cache(tokens: Tensor, config: MemoryConfig) -> Tensor:
    return tokens.clamp(max=config.sink_tokens + config.window_tokens - 1)


INFLLM = FarRule(
    "infllm", _one_distance, _at_zero, lambda config: config.window_tokens - 1, keeps_leaving=True
)
"""InfLLM (arXiv 2402.04617 §3.2, and its released code): every far token at distance ``window_tokens`` - 1."""
LM_INFINITE = FarRule(
    "lm-infinite", _one_distance, _at_zero, lambda config: config.window_tokens - 1, keeps_leaving=False
)
"""LM-Infinite (arXiv 2308.16137): a Λ-shaped mask, sinks and window; distances are capped at
``window_tokens`` - 1. Without sinks it is plain sliding-window attention."""
STREAMING = FarRule(
    "streaming",
    _in_cache,
    _in_cache,
    lambda config: config.sink_tokens + config.window_tokens - 1,
    keeps_leaving=False,
)
"""StreamingLLM (arXiv 2309.17453 §3.2): sinks and window at their places in the cache, not in the text."""


class FarPlacement:
    """Fills a workspace's pair buffers."""

    def __init__(self, rule: FarRule, config: MemoryConfig, workspace: Workspace, loader: Loader) -> None:
        self._rule = rule
        self._config = config
        self._buffers = workspace.pairs
        self._staging = workspace.staging
        self._loader = loader
        self._device = workspace.device
        self._plain = OrderedPlacement(workspace, loader)
        self._mask: tuple[Layout, int, int, Tensor] | None = None

    def fill(self, spec: LayerSpec, layout: Layout, choose: Choose) -> Tensor | None:
        """See :meth:`Placement.fill`."""
        if spec.window is not None or layout.dense:
            return self._plain.fill(spec, layout, choose)
        buffer, state = self._buffers[spec.index], layout.state
        buffer.clear()
        sinks = torch.arange(layout.split.sink_stop, device=self._device)
        positions = self._rule.key(sinks, self._config)
        self._loader.span(spec, 0, len(sinks), state, buffer, partial(buffer.add_far, positions=positions))
        chosen = choose()
        if chosen is not None:
            far = self._far(buffer, chosen.shape[1] * state.grid.size)
            self._loader.chosen(spec, chosen, state, buffer, far)
        leaving = self._leaving(layout)
        self._loader.span(spec, leaving.start, leaving.stop, state, buffer, self._far(buffer, len(leaving)))
        start = self._near_start(layout)
        near = partial(buffer.add_near, positions=range(layout.length - start))
        self._loader.span(spec, start, layout.length, state, buffer, near)
        return chosen

    def see(
        self, spec: LayerSpec, layout: Layout, q_raw: Tensor, k_raw: Tensor, v: Tensor, staged: int
    ) -> Sight:
        """See :meth:`Placement.see`. E is 2 D where pairs are seen."""
        if spec.window is not None or layout.dense:
            return self._plain.see(spec, layout, q_raw, k_raw, v, staged)
        self._staging.put(spec.index, staged, q_raw[0], k_raw, v)
        buffer, T = self._buffers[spec.index], q_raw.shape[2]
        far, start = self._far_count(layout), self._near_start(layout)
        first = start + buffer.used - far
        near = range(first - start, first - start + T)
        tokens = torch.arange(first, first + T, device=self._device)
        pairs = buffer.pair_queries(q_raw, self._rule.query(tokens, self._config), near)
        buffer.add_near(k_raw, v, near)
        mask = self._visible(layout, tokens, buffer.used, q_raw.dtype)
        if buffer.any_dead:
            gone = torch.zeros(buffer.dead[:, : buffer.used].shape, dtype=q_raw.dtype, device=self._device)
            gone.masked_fill_(buffer.dead[:, : buffer.used], -torch.inf)
            mask = mask + gone.repeat_interleave(spec.num_q_heads // spec.num_kv_heads, dim=0)[:, None]
        keys, values = buffer.keys[:, : buffer.used], buffer.values[:, : buffer.used]
        return Sight(pairs, keys, values, mask, layout.recalled, far, start, pairs=True)

    def _far(self, buffer: PairBuffer, count: int) -> Callable[[Tensor, Tensor | None], None]:
        """Appends tokens at position 0."""
        zeros = torch.zeros(count, dtype=torch.int64, device=self._device)
        return partial(buffer.add_far, positions=zeros)

    def _leaving(self, layout: Layout) -> range:
        """Tokens behind the last whole block that some query of this chunk or its steps has left behind."""
        start = layout.split.window_start
        stop = layout.held_stop - self._config.window_tokens if self._rule.keeps_leaving else start
        return range(start, max(start, stop))

    def _near_start(self, layout: Layout) -> int:
        """The oldest token in the window of the chunk's first query."""
        return max(0, layout.length - self._config.window_tokens + 1)

    def _far_count(self, layout: Layout) -> int:
        return int(layout.recalled.stop) + len(self._leaving(layout))

    def _visible(self, layout: Layout, queries: Tensor, used: int, dtype: torch.dtype) -> Tensor:
        """(T, S) additive mask, made once per chunk for all layers."""
        kept, T = self._mask, len(queries)
        if kept is not None and kept[0] is layout and kept[1:3] == (used, T):
            return kept[3]
        device, far = self._device, self._far_count(layout)
        leaving, start = self._leaving(layout), self._near_start(layout)
        keys = torch.cat(
            [
                torch.arange(layout.split.sink_stop, device=device),
                torch.full((layout.recalled.stop - layout.recalled.start,), _ALWAYS_FAR, device=device),
                torch.arange(leaving.start, leaving.stop, device=device),
                torch.arange(start, start + used - far, device=device),
            ]
        )
        distance, window = queries[:, None] - keys, self._config.window_tokens
        is_far = torch.arange(used, device=device) < far
        seen = torch.where(is_far, distance >= window, (distance >= 0) & (distance < window))
        mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, -torch.inf)
        self._mask = (layout, used, T, mask)
        return mask

"""What a placement is: it lays the past out in buffers and says what a chunk's queries see of it.

Knows no rule of choosing: the choice is asked for through a function, when its place comes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch import Tensor

from agentmem.config import MemoryConfig
from agentmem.memory.buffers import Workspace, WorkspaceSize
from agentmem.memory.layout import Layout
from agentmem.memory.loading import Loader
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import Selector

Choose = Callable[[], Tensor | None]
"""Chooses blocks for the chunk: (Hkv, K) int64, or None when nothing is recalled."""


class Sight(NamedTuple):
    """What one layer attends with and to. E is D, or what a placement makes of it (see there)."""

    queries: Tensor
    """(1, Hq, T, E), rotated."""
    keys: Tensor
    """(Hkv, S, E), rotated."""
    values: Tensor
    """(Hkv, S, E); the first D dims of what comes out count."""
    mask: Tensor | None
    """Additive, broadcastable to (Hq, T, S)."""
    recalled: slice
    """Where in S the recalled tokens lie (full layers)."""
    newest: int
    """Where in S the newest tokens begin, which lie there one by one up to the last query's own."""
    newest_token: int
    """Which token of the log lies there."""
    causal: bool = False
    """The mask, if any, hides nothing but what comes after each query; the last key is the last query's own."""
    pairs: bool = False
    """E is 2 D, and one half of each key is zero: the second before ``newest``, the first from there on."""


class Placement(Protocol):
    """The buffers of one turn, as one rule of positions fills them."""

    def fill(self, spec: LayerSpec, layout: Layout, choose: Choose) -> Tensor | None:
        """Lay a layer's past out anew; returns what ``choose`` chose, if it was asked."""
        ...

    def see(
        self, spec: LayerSpec, layout: Layout, q_raw: Tensor, k_raw: Tensor, v: Tensor, staged: int
    ) -> Sight:
        """Append T new tokens: q_raw (1, Hq, T, D), k_raw and v (Hkv, T, D); what their queries see.

        The three are staged too, from index ``staged`` on, as they are.
        """
        ...


class PositionRule(Protocol):
    """One way of giving positions, by name: ``MemoryConfig.positions``."""

    @property
    def name(self) -> str:
        """The name it is chosen by."""
        ...

    def size(self, config: MemoryConfig, selector: Selector) -> WorkspaceSize:
        """The buffers it needs, and the largest position it uses."""
        ...

    def distance(self, config: MemoryConfig) -> int:
        """How far away blocks are taken to be while they are scored."""
        ...

    def start(self, config: MemoryConfig, workspace: Workspace, loader: Loader) -> Placement:
        """A placement for one turn."""
        ...

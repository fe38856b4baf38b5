"""In-window positions: sinks, chosen blocks in token order, window and new tokens, one after the other.

The working set is one sequence at consecutive positions within the trained length, so one ordinary
attention call serves it, far blocks keep their order (ReAttention, arXiv 2407.15176), and decoding goes
on against one buffer while the selection is held. Also serves every placement's dense chunks and
sliding layers, where positions are the true ones. Chooses nothing.
"""

from __future__ import annotations

from torch import Tensor

from agentmem.config import MemoryConfig
from agentmem.memory.buffers import LayerBuffer, Workspace, WorkspaceSize
from agentmem.memory.layout import Layout
from agentmem.memory.loading import Loader
from agentmem.memory.masks import Masks
from agentmem.memory.placements.base import Choose, Placement, Sight
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import Selector


class Ordered:
    """The rule of the default mode."""

    name = "ordered"

    def size(self, config: MemoryConfig, selector: Selector) -> WorkspaceSize:
        """Buffers for the whole working set; their length is also the largest position."""
        return WorkspaceSize.of(config, selector)

    def distance(self, config: MemoryConfig) -> int:
        """A window away: where a block will stand is known only after the choice."""
        return config.window_tokens

    def start(self, config: MemoryConfig, workspace: Workspace, loader: Loader) -> Placement:
        """A placement for one turn."""
        return OrderedPlacement(workspace, loader)


class OrderedPlacement:
    """Fills a workspace's layer buffers."""

    def __init__(self, workspace: Workspace, loader: Loader) -> None:
        self._buffers = workspace.layers
        self._staging = workspace.staging
        self._loader = loader
        self._masks = Masks()

    def fill(self, spec: LayerSpec, layout: Layout, choose: Choose) -> Tensor | None:
        """See :meth:`Placement.fill`."""
        buffer, split, state = self._buffers[spec.index], layout.split, layout.state
        buffer.clear()
        if spec.window is not None:
            self._span(spec, buffer, max(0, layout.length - spec.window + 1), layout.length, layout)
            return None
        if layout.dense:
            self._span(spec, buffer, 0, layout.length, layout)
            return None
        self._span(spec, buffer, 0, split.sink_stop, layout)
        chosen = choose()
        if chosen is not None:
            self._loader.chosen(spec, chosen, state, buffer, buffer.extend)
        self._span(spec, buffer, split.window_start, layout.length, layout)
        return chosen

    def see(
        self, spec: LayerSpec, layout: Layout, q_raw: Tensor, k_raw: Tensor, v: Tensor, staged: int
    ) -> Sight:
        """See :meth:`Placement.see`."""
        buffer = self._buffers[spec.index]
        q_rot = buffer.enter(q_raw, k_raw, v, self._staging, staged)
        seen, mask = self._masks.visible(buffer, q_raw.shape[2], q_raw.dtype)
        dense = layout.dense
        return Sight(
            q_rot,
            buffer.keys_rot[:, seen],
            buffer.values[:, seen],
            mask,
            layout.recalled,
            0 if dense else layout.recalled.stop,
            0 if dense else layout.split.window_start,
            causal=spec.window is None and not buffer.any_dead,
        )

    def _span(self, spec: LayerSpec, buffer: LayerBuffer, start: int, stop: int, layout: Layout) -> None:
        self._loader.span(spec, start, stop, layout.state, buffer, buffer.extend)

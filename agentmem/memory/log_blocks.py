"""One layer's blocks as a selection rule sees them: digests, and raw keys read through the log.

Also computes the digests that are not there yet. Knows no rule and no positions in the window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from agentmem.memory.blocks import BlockGrid, clip_ranges
from agentmem.memory.buffers import Workspace
from agentmem.memory.digest_view import DigestView
from agentmem.memory.resident import Resident
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import Selector
from agentmem.memory.source import DigestLog, TokenLog

MakeDigests = Callable[[LayerSpec, int, Tensor, Tensor | None], Tensor]
"""(layer, first digest, keys (Hkv, n, S*L, D), alive (n, S*L) or None) -> digests (Hkv, n, R, D)."""


class BlocksState:
    """What all layers share while one selection is made: how many blocks, and which tokens are dead."""

    def __init__(
        self, grid: BlockGrid, count: int, dead: Sequence[tuple[int, int]], device: torch.device
    ) -> None:
        self.grid = grid
        self.count = count
        self._dead_starts = torch.tensor([start for start, _ in dead], dtype=torch.int64)
        self._dead_stops = torch.tensor([stop for _, stop in dead], dtype=torch.int64)
        self._offsets = torch.arange(grid.size)
        gone = self._fully_dead(dead)
        self.living = count - len(gone)
        self.alive: Tensor | None = None
        if gone:
            alive = torch.ones(count, dtype=torch.bool)
            alive[gone] = False
            self.alive = alive.to(device)

    def tokens(self, blocks: Tensor) -> Tensor:
        """Positions in the log of the blocks' tokens: (Hkv, C) -> (Hkv, C*L) int64."""
        starts = blocks * self.grid.size + self.grid.sinks
        return (starts[..., None] + self._offsets).flatten(1)

    def dead_flags(self, tokens: Tensor) -> Tensor | None:
        """Which tokens are forgotten, same shape, bool; None when nothing ever was."""
        if not len(self._dead_starts):
            return None
        at = torch.searchsorted(self._dead_starts, tokens, right=True) - 1
        return (at >= 0) & (tokens < self._dead_stops[at.clamp(min=0)])

    def _fully_dead(self, dead: Sequence[tuple[int, int]]) -> list[int]:
        gone = (block for start, stop in dead for block in self.grid.whole_inside(start, stop))
        return [block for block in gone if block < self.count]


class LogBlocks:
    """Blocks 0 .. count - 1 of one layer. Implements :class:`BlockView`."""

    def __init__(
        self,
        spec: LayerSpec,
        log: TokenLog,
        digests: DigestView,
        workspace: Workspace,
        state: BlocksState,
        resident: Resident | None = None,
    ) -> None:
        self._spec = spec
        self._log = log
        self._digests = digests
        self._workspace = workspace
        self._state = state
        self._resident = resident
        self._device = workspace.device

    @property
    def layer(self) -> int:
        """Whose blocks they are."""
        return self._spec.index

    @property
    def count(self) -> int:
        """N."""
        return self._state.count

    @property
    def digested(self) -> int:
        """N / S."""
        return self._state.count // self._digests.span

    @property
    def alive(self) -> Tensor | None:
        """(N,) bool on the device, or None."""
        return self._state.alive

    def digests(self) -> Sequence[Tensor]:
        """The N / S digests: (Hkv, n_i, R, D), on the device."""
        return self._digests.parts(self._spec.index, self.digested)

    def room(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Memory of the turn's workspace."""
        return self._workspace.rooms.room(name, shape, dtype)

    def keys_raw(self, blocks: Tensor) -> Tensor:
        """Raw keys (Hkv, C) -> (Hkv, C, L, D)."""
        if self._resident is not None:
            return self._resident.keys_raw(self._spec, blocks, self._state.tokens)
        Hkv, C = blocks.shape
        size = self._state.grid.size
        tokens = self._state.tokens(blocks.cpu())
        scratch = self._workspace.keys_scratch(self._spec, C * size)
        self._log.gather(self._spec.index, tokens, scratch, None)
        return scratch.view(Hkv, C, size, -1).to(self._device)

    def dead_tokens(self, blocks: Tensor) -> Tensor | None:
        """(Hkv, C, L) bool, or None."""
        dead = self._state.dead_flags(self._state.tokens(blocks.cpu()))
        return None if dead is None else dead.view(*blocks.shape, -1).to(self._device)


def digest_missing(
    count: int,
    grid: BlockGrid,
    selector: Selector,
    specs: Sequence[LayerSpec],
    log: TokenLog,
    digests: DigestLog,
    workspace: Workspace,
    make: MakeDigests | None = None,
) -> int:
    """Compute the digests that are not there yet of the first ``count`` blocks; returns how many.

    ``make`` stands in for ``selector.digest`` where digests depend on more than a block's keys.
    """
    grid, count = grid.joined(selector.digest_span), count // selector.digest_span
    first, torn = divmod(digests.count, selector.digest_rows)
    if torn:  # damage can leave a part of a digest's rows
        digests.truncate(first * selector.digest_rows)
    batch = max(1, workspace.size.scratch // grid.size)
    for start in range(first, count, batch):
        stop = min(start + batch, count)
        low, high = grid.bounds(start)[0], grid.bounds(stop - 1)[1]
        alive = _alive(log.dead, low, high, grid.size)
        rows = []
        for spec in specs:
            if spec.window is not None:  # never recalled, so never scored
                empty = (spec.num_kv_heads, (stop - start) * selector.digest_rows, spec.head_dim)
                rows.append(torch.zeros(empty, dtype=log.layout.dtype))
                continue
            keys_raw = workspace.keys_scratch(spec, high - low)
            log.read(spec.index, low, high, keys_raw, None)
            blocks = keys_raw.view(spec.num_kv_heads, stop - start, grid.size, -1)
            made = make(spec, start, blocks, alive) if make is not None else selector.digest(blocks, alive)
            rows.append(made.flatten(1, 2))
        digests.append(rows)
    return max(0, count - first)


def _alive(dead: Sequence[tuple[int, int]], low: int, high: int, size: int) -> Tensor | None:
    """(n, L) bool over tokens [low, high), or None when none of them is forgotten."""
    inside = clip_ranges(dead, low, high)
    if not inside:
        return None
    alive = torch.ones(high - low, dtype=torch.bool)
    for start, stop in inside:
        alive[start - low : stop - low] = False
    return alive.view(-1, size)

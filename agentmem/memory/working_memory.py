"""What attention sees of one agent's past, for the length of one turn.

At each chunk the past is laid out anew: sinks, chosen blocks, window, new tokens, where a
:class:`~agentmem.memory.placements.PositionRule` puts them. A chunk that ends within the dense limit
attends to everything. While decoding, the set is held and new tokens are appended to it; every
``reselect_every`` tokens it is chosen anew. A turn starts from the log alone: nothing here outlives it.
Knows no model, no token ids, no files, and neither how positions are given nor how blocks are chosen.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from agentmem.config import MemoryConfig
from agentmem.errors import ConfigError
from agentmem.memory.blocks import BlockGrid, joined_ranges
from agentmem.memory.buffers import Workspace
from agentmem.memory.choosing import Chooser
from agentmem.memory.digest_view import DigestView
from agentmem.memory.explicit import attend_and_count
from agentmem.memory.layout import Layout
from agentmem.memory.loading import Loader
from agentmem.memory.log_blocks import BlocksState, digest_missing
from agentmem.memory.placements import POSITION_RULES, Sight
from agentmem.memory.received import Received, ReceivingSelector, fitted
from agentmem.memory.residency import CacheUse
from agentmem.memory.resident import resident_of
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import QUERY_ROWS, Selector
from agentmem.memory.shares import Shares, block_mass
from agentmem.memory.slab import Share
from agentmem.memory.source import DigestLog, TokenLog
from agentmem.memory.witness import Witness
from agentmem_kernels import attend

SHARE_ROWS = 32
"""Newest query tokens of a chunk from which shares are measured."""


class WorkingMemory:
    """The attention context of one turn: ``begin`` a chunk, run the model, ``end`` it; ``flush`` last.

    Args:
        specs: the bound model's layers.
        log: the agent's tokens; the turn's own are appended to it.
        digests: the digests of its blocks.
        config: budgets, and by name the rule of positions.
        selector: the rule of choosing.
        workspace: buffers on the model's device, of the size that the rule of positions asks for, used by
            this turn alone.
        witness: told of each selection, if there is one.
        hidden: tokens [start, stop) that this turn may not attend to, as if they were forgotten; digests, which
            outlive the turn, do not change with them.
        share: blocks of this agent that are on the device, and true of ``log`` as it stands.
    """

    def __init__(
        self,
        specs: Sequence[LayerSpec],
        log: TokenLog,
        digests: DigestLog,
        config: MemoryConfig,
        selector: Selector,
        workspace: Workspace,
        witness: Witness | None = None,
        hidden: Sequence[tuple[int, int]] = (),
        share: Share | None = None,
    ) -> None:
        positions = POSITION_RULES[config.positions]
        digested = config.block_tokens * selector.digest_span
        kind = f"{selector.digest_kind}:sinks={config.sink_tokens}:block={digested}"
        digests.select(kind)
        selector = fitted(selector, specs)
        self.shares = Shares()
        self.selections = 0
        self._specs = specs
        self._log = log
        self._digests = digests
        self._config = config
        self._selector = selector
        self._workspace = workspace
        self._grid = BlockGrid(config.sink_tokens, config.block_tokens)
        self._resident = resident_of(share, log, workspace.rooms)
        self._placement = positions.start(config, workspace, Loader(log, workspace, self._resident))
        self._view = DigestView(digests, selector, workspace.device)
        self._chooser = Chooser(
            selector, log, self._view, workspace, positions.distance(config), witness, self._resident
        )
        self._hidden = hidden
        self._staged = 0
        self._recent = 0
        self._new = 0
        self._held = 0
        self._layout: Layout | None = None
        self._rebuild = True
        self._measure = False
        self._decoding = False
        self._received: Received | None = None
        if isinstance(selector, ReceivingSelector):
            self._received = Received(
                selector, specs, config, digests.states, kind, log.length, workspace.device
            )

    @property
    def length(self) -> int:
        """Tokens of the agent so far, the staged ones included."""
        return self._log.length + self._staged

    @property
    def cache_use(self) -> CacheUse | None:
        """What was found on the device, and what was not; None where no blocks are kept there."""
        return None if self._resident is None else self._resident.use

    def begin(self, new_tokens: int, *, decoding: bool = False, measure: bool = False) -> None:
        """Prepare for T new tokens: decide whether the working set is held or laid out anew.

        Args:
            new_tokens: T, at most ``chunk_tokens``.
            decoding: the tokens follow a held selection; otherwise they are a chunk with its own.
            measure: add this chunk's attention to ``shares``.
        """
        if new_tokens > self._config.chunk_tokens:
            raise ConfigError(
                f"a chunk of {new_tokens} tokens exceeds chunk_tokens={self._config.chunk_tokens}"
            )
        hold = self._can_hold(new_tokens, decoding=decoding)
        if not hold or self._staged + new_tokens > self._workspace.size.step:
            self._write_staged()
        if not decoding or self._received is not None:
            self._recent = 0
        if self._received is not None:
            self._received.close(self.length)
        if not hold:
            self._layout = self._plan(self.length + new_tokens)
        self._held = self._held + new_tokens if hold else 0
        self._rebuild = not hold
        self._new = new_tokens
        self._measure = measure or decoding
        self._decoding = decoding

    def attend(
        self,
        layer: int,
        q_raw: Tensor,
        k_raw: Tensor,
        v: Tensor,
        *,
        scaling: float,
        softcap: float | None,
        sinks: Tensor | None,
    ) -> Tensor:
        """Attention of one layer: q (1, Hq, T, D), k and v (1, Hkv, T, D) -> (1, Hq, T, D)."""
        spec, layout = self._specs[layer], self._layout
        assert layout is not None, "begin() comes before attend()"
        if not self._decoding:
            self._chooser.hear(layer, q_raw[0])
        chosen = self._fill(spec, layout, q_raw[0], scaling) if self._rebuild else None
        sight = self._placement.see(spec, layout, q_raw, k_raw[0], v[0], self._staged)
        if chosen is not None and self._measure:
            self._add_shares(sight, chosen, scaling, softcap, sinks)
        if self._received is not None and spec.window is None:
            out, received = attend_and_count(
                sight, self._workspace.rooms, scaling=scaling, softcap=softcap, sinks=sinks
            )
            self._received.add(layer, sight, received)
            return out[..., : spec.head_dim]
        out = attend(
            sight.queries,
            sight.keys[None],
            sight.values[None],
            scaling=scaling,
            mask=sight.mask,
            softcap=softcap,
            sinks=sinks,
            scratch=self._workspace.rooms,
        )
        return out[..., : spec.head_dim]

    def end(self) -> None:
        """The model has run: the chunk's tokens are past now."""
        self._staged += self._new
        self._new = 0
        self._rebuild = False

    def flush(self) -> None:
        """Write staged tokens to the log, and say what the turn shall be committed with beside them."""
        self._write_staged()
        if self._received is not None:
            self._received.keep(self._log.length)

    def truncate(self, length: int) -> None:
        """Drop the turn's tokens from ``length`` on, digests included; the next chunk lays out anew."""
        self._write_staged()
        self._log.truncate(length)
        self._view.truncate(self._grid.whole_before(length))
        if self._resident is not None:
            self._resident.truncate(self._grid.whole_before(length))
        if self._received is not None:
            self._received.truncate(length)
        self._layout = None

    def _write_staged(self) -> None:
        """Move staged tokens to the log. The newest queries are kept for the next selection."""
        if not self._staged:
            return
        staging, staged = self._workspace.staging, self._staged
        self._log.append(
            [keys[:, :staged].cpu() for keys in staging.keys_raw],
            [values[:, :staged].cpu() for values in staging.values],
        )
        self._recent = min(staged, max(QUERY_ROWS, self._selector.query_rows))
        for rows in staging.queries_raw:
            rows[:, : self._recent] = rows[:, staged - self._recent : staged].clone()
        self._staged = 0

    # -- laying out: once per chunk, shared by all layers ---------------------------------------------

    def _can_hold(self, new_tokens: int, *, decoding: bool) -> bool:
        """Whether the working set of the last chunk serves T more tokens."""
        if self._layout is None:
            return False
        if self._layout.dense:
            return self.length + new_tokens <= self._config.dense_limit
        return decoding and self._held + new_tokens <= self._config.reselect_every

    def _plan(self, stop: int) -> Layout:
        """Lay out the past for a chunk that ends at ``stop``; digests its new blocks."""
        dense = stop <= self._config.dense_limit
        split = self._grid.split(self._log.length, self._config.window_tokens, self._selector.digest_span)
        device = self._workspace.device
        unseen = joined_ranges([*self._log.dead, *self._hidden])
        state = BlocksState(self._grid, 0 if dense else split.blocks, unseen, device)
        chosen = min(self._config.recall_blocks, state.living)
        if chosen:
            self.selections += 1
            digest_missing(
                state.count,
                self._grid,
                self._selector,
                self._specs,
                self._log,
                self._digests,
                self._workspace,
                None if self._received is None else self._received.digest,
            )
        return Layout(split, dense, state, chosen, stop + self._config.reselect_every)

    # -- one layer ------------------------------------------------------------------------------------

    def _fill(self, spec: LayerSpec, layout: Layout, q_raw: Tensor, scaling: float) -> Tensor | None:
        """Lay a layer's past out; returns the chosen blocks (Hkv, K), if any."""

        def choose() -> Tensor | None:
            return self._chooser.choose(
                spec, layout, q_raw, scaling, recent=self._recent, decoding=self._decoding
            )

        return self._placement.fill(spec, layout, choose)

    def _add_shares(
        self, sight: Sight, chosen: Tensor, scaling: float, softcap: float | None, sinks: Tensor | None
    ) -> None:
        rows = slice(-min(SHARE_ROWS, sight.queries.shape[2]), None)
        mass, count = block_mass(
            sight.queries[0, :, rows],
            sight.keys,
            sight.recalled,
            chosen.shape[1],
            scaling=scaling,
            softcap=softcap,
            sinks=sinks,
            mask=None if sight.mask is None else sight.mask[..., rows, :],
            causal=sight.causal,
            scratch=self._workspace.rooms,
        )
        self.shares.add(chosen, mass, count)

"""What attention sees of one agent's past, for the length of one turn.

At each chunk the working set is laid out as one sequence: sinks, chosen blocks in token order, window,
new tokens, at consecutive positions (``positions="ordered"``). A chunk that ends within the dense limit
attends to everything. While decoding, the set is held and new tokens are appended to it; every
``reselect_every`` tokens it is chosen anew. A turn starts from the log alone: nothing here outlives it.
Knows no model, no token ids, no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from agentmem.config import MemoryConfig
from agentmem.errors import ConfigError
from agentmem.memory.blocks import BlockGrid, Split
from agentmem.memory.buffers import LayerBuffer, Workspace
from agentmem.memory.log_blocks import BlocksState, LogBlocks, digest_missing
from agentmem.memory.masks import Masks
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import QUERY_ROWS, Selector
from agentmem.memory.shares import Shares, block_mass
from agentmem.memory.source import DigestLog, TokenLog
from agentmem.memory.witness import Witness
from agentmem_kernels import attend

SHARE_ROWS = 32
"""Newest query tokens of a chunk from which shares are measured."""


@dataclass(frozen=True)
class Layout:
    """How the past of a chunk is laid out in the full layers' buffers."""

    split: Split
    dense: bool
    state: BlocksState
    chosen: int
    """K, blocks recalled per KV head; 0 when dense."""

    @property
    def recalled(self) -> slice:
        """Where the recalled tokens lie in the buffer."""
        return slice(self.split.sink_stop, self.split.sink_stop + self.chosen * self.state.grid.size)


class WorkingMemory:
    """The attention context of one turn: ``begin`` a chunk, run the model, ``end`` it; ``flush`` last.

    Args:
        specs: the bound model's layers.
        log: the agent's tokens; the turn's own are appended to it.
        digests: the digests of its blocks.
        config: budgets.
        selector: the rule.
        workspace: buffers on the model's device, used by this turn alone.
        witness: told of each selection, if there is one.
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
    ) -> None:
        self.shares = Shares()
        self.selections = 0
        self._specs = specs
        self._log = log
        self._digests = digests
        self._config = config
        self._selector = selector
        self._workspace = workspace
        self._witness = witness
        self._grid = BlockGrid(config.sink_tokens, config.block_tokens)
        self._masks = Masks()
        self._staged = 0
        self._recent = 0
        self._new = 0
        self._held = 0
        self._layout: Layout | None = None
        self._rebuild = True
        self._measure = False
        self._decoding = False
        self._question: dict[int, Tensor] = {}
        digests.select(f"{selector.digest_kind}:sinks={config.sink_tokens}:block={config.block_tokens}")

    @property
    def length(self) -> int:
        """Tokens of the agent so far, the staged ones included."""
        return self._log.length + self._staged

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
            self.flush()
        if not decoding:
            self._recent = 0
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
        spec, buffer = self._specs[layer], self._workspace.layers[layer]
        if self._selector.keeps_question and not self._decoding:
            self._keep_question(layer, q_raw[0])
        chosen = self._fill(spec, buffer, q_raw[0], scaling) if self._rebuild else None
        self._workspace.staging.put(layer, self._staged, q_raw[0], k_raw[0], v[0])
        q_rot = buffer.rotate_queries(q_raw, buffer.used)
        buffer.extend(k_raw[0], v[0])
        seen, mask = self._masks.visible(buffer, q_raw.shape[2], q_raw.dtype)
        keys_rot, values = buffer.keys_rot[:, seen], buffer.values[:, seen]
        if chosen is not None and self._measure:
            rows = slice(-min(SHARE_ROWS, q_raw.shape[2]), None)
            self._add_shares(q_rot[0, :, rows], keys_rot, chosen, scaling, softcap, sinks, _rows(mask, rows))
        return attend(
            q_rot, keys_rot[None], values[None], scaling=scaling, mask=mask, softcap=softcap, sinks=sinks
        )

    def end(self) -> None:
        """The model has run: the chunk's tokens are past now."""
        self._staged += self._new
        self._new = 0
        self._rebuild = False

    def flush(self) -> None:
        """Write staged tokens to the log. The newest queries are kept for the next selection."""
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

    def truncate(self, length: int) -> None:
        """Drop the turn's tokens from ``length`` on, digests included; the next chunk lays out anew."""
        self.flush()
        self._log.truncate(length)
        whole = self._grid.whole_before(length) * self._selector.digest_rows
        self._digests.truncate(min(self._digests.count, whole))
        self._layout = None

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
        split = self._grid.split(self._log.length, self._config.window_tokens)
        device = self._workspace.device
        state = BlocksState(self._grid, 0 if dense else split.blocks, self._log.dead, device)
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
            )
        return Layout(split, dense, state, chosen)

    # -- filling one layer's buffer ------------------------------------------------------------------

    def _fill(self, spec: LayerSpec, buffer: LayerBuffer, q_raw: Tensor, scaling: float) -> Tensor | None:
        """Rebuild a layer's buffer from the log; returns the chosen blocks (Hkv, K), if any."""
        layout, length = self._layout, self._log.length
        assert layout is not None, "begin() comes before attend()"
        buffer.clear()
        if spec.window is not None:
            self._load(spec, buffer, max(0, length - spec.window + 1), length)
            return None
        if layout.dense:
            self._load(spec, buffer, 0, length)
            return None
        self._load(spec, buffer, 0, layout.split.sink_stop)
        chosen = None
        if layout.chosen:
            chosen = self._choose(spec, layout, q_raw, scaling)
            self._load_tokens(spec, buffer, layout.state.tokens(chosen.cpu()))
        if self._witness is not None and layout.state.count:
            blocks = self._blocks(spec, layout)
            none = torch.empty(spec.num_kv_heads, 0, dtype=torch.int64, device=q_raw.device)
            self._witness.saw(spec, q_raw, scaling, none if chosen is None else chosen, blocks)
        self._load(spec, buffer, layout.split.window_start, length)
        return chosen

    def _load(self, spec: LayerSpec, buffer: LayerBuffer, start: int, stop: int) -> None:
        """Append tokens [start, stop) of the log, the same for all heads, to a buffer."""
        if stop > start:
            keys_raw, values = self._room(spec, buffer, stop - start)
            self._log.read(spec.index, start, stop, keys_raw, values)
            self._mark_dead(buffer, torch.arange(start, stop)[None])
            self._enter(buffer, keys_raw, values)

    def _load_tokens(self, spec: LayerSpec, buffer: LayerBuffer, tokens: Tensor) -> None:
        """Append chosen tokens of the log, (Hkv, n) per head, to a buffer."""
        keys_raw, values = self._room(spec, buffer, tokens.shape[1])
        self._log.gather(spec.index, tokens, keys_raw, values)
        self._mark_dead(buffer, tokens)
        self._enter(buffer, keys_raw, values)

    def _room(self, spec: LayerSpec, buffer: LayerBuffer, count: int) -> tuple[Tensor, Tensor]:
        """CPU room for raw keys and for values; the values' is the buffer itself when it can be."""
        keys_raw = self._workspace.keys_scratch(spec, count)
        if self._workspace.device.type == "cpu":
            return keys_raw, buffer.values[:, buffer.used : buffer.used + count]
        return keys_raw, self._workspace.values_scratch(spec, count)

    def _enter(self, buffer: LayerBuffer, keys_raw: Tensor, values: Tensor) -> None:
        device = self._workspace.device
        buffer.extend(keys_raw.to(device), None if device.type == "cpu" else values.to(device))

    def _mark_dead(self, buffer: LayerBuffer, tokens: Tensor) -> None:
        assert self._layout is not None
        flags = self._layout.state.dead_flags(tokens)
        if flags is not None and bool(flags.any()):
            buffer.mark_dead(flags.to(self._workspace.device))

    # -- choosing and measuring ----------------------------------------------------------------------

    def _choose(self, spec: LayerSpec, layout: Layout, q_raw: Tensor, scaling: float) -> Tensor:
        """The rule's choice for this chunk's queries, (Hkv, K)."""
        blocks = self._blocks(spec, layout)
        return self._selector.choose(self._queries(spec, q_raw, scaling), blocks, layout.chosen)

    def _blocks(self, spec: LayerSpec, layout: Layout) -> LogBlocks:
        rows = self._selector.digest_rows
        return LogBlocks(spec, self._log, self._digests, self._workspace, layout.state, rows)

    def _queries(self, spec: LayerSpec, q_raw: Tensor, scaling: float) -> Tensor:
        """The chunk's queries at one middle distance, scaled: (Hq, T, D) -> (Hkv, G*M, D) fp32.

        Every block is scored at the same distance, since where it will stand is known only after the
        choice. Keys stay raw, so ``key_scale`` supplies what rotation would have multiplied them by.
        """
        if self._recent:
            recent = self._workspace.staging.queries_raw[spec.index][:, : self._recent]
            q_raw = torch.cat([recent, q_raw], dim=1)
        rows = _average_rows(q_raw, self._selector.query_rows)  # (Hq, M, D)
        if self._decoding and spec.index in self._question:
            rows = torch.cat([self._question[spec.index], rows], dim=1)
        if spec.rotary is not None:
            distance = torch.full((rows.shape[1],), self._config.window_tokens, device=rows.device)
            rows = spec.rotary.rotate(rows, distance) * spec.rotary.key_scale()
        return (rows.float() * scaling).reshape(spec.num_kv_heads, -1, spec.head_dim)

    def _keep_question(self, layer: int, q_raw: Tensor) -> None:
        """The newest rows of what the turn read, for choices made while decoding."""
        rows, limit = _average_rows(q_raw, self._selector.query_rows), self._selector.query_rows
        kept = self._question.get(layer, rows[:, :0])
        self._question[layer] = torch.cat([kept, rows], dim=1)[:, -limit:]

    def _add_shares(
        self,
        q_rot: Tensor,
        keys_rot: Tensor,
        chosen: Tensor,
        scaling: float,
        softcap: float | None,
        sinks: Tensor | None,
        mask: Tensor | None,
    ) -> None:
        assert self._layout is not None
        mass, rows = block_mass(
            q_rot,
            keys_rot,
            self._layout.recalled,
            self._layout.chosen,
            scaling=scaling,
            softcap=softcap,
            sinks=sinks,
            mask=mask,
        )
        self.shares.add(chosen, mass, rows)


def _average_rows(rows: Tensor, limit: int) -> Tensor:
    """At most ``limit`` rows: neighbours are averaged in equal runs. (Hq, T, D) -> (Hq, M, D)."""
    T = rows.shape[1]
    if limit >= T:
        return rows
    run = -(-T // limit)
    parts = [part.float().mean(1, keepdim=True).to(rows.dtype) for part in rows.split(run, dim=1)]
    return torch.cat(parts, dim=1)


def _rows(mask: Tensor | None, rows: slice) -> Tensor | None:
    """The mask of some query rows only; a mask without a query axis serves all."""
    return None if mask is None else mask[..., rows, :]

"""Asking a rule for blocks: which queries vote, at what distance, and who is told of the choice.

Knows no buffers of keys and no positions in the window; one object serves one turn.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem.memory.buffers import Workspace
from agentmem.memory.digest_view import DigestView
from agentmem.memory.layout import Layout
from agentmem.memory.log_blocks import LogBlocks
from agentmem.memory.resident import Resident
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import Selector
from agentmem.memory.source import TokenLog
from agentmem.memory.witness import Witness


class Chooser:
    """One turn's selections.

    Args:
        selector: the rule.
        distance: how far away blocks are taken to be, in tokens.
        witness: told of each selection, if there is one.
        resident: how keys of blocks come through a slab, if there is one.
    """

    def __init__(
        self,
        selector: Selector,
        log: TokenLog,
        digests: DigestView,
        workspace: Workspace,
        distance: int,
        witness: Witness | None,
        resident: Resident | None = None,
    ) -> None:
        self._selector = selector
        self._log = log
        self._digests = digests
        self._workspace = workspace
        self._distance = distance
        self._witness = witness
        self._resident = resident
        self._question: dict[int, Tensor] = {}

    def hear(self, layer: int, q_raw: Tensor) -> None:
        """Keep the newest rows (Hq, T, D) of what the turn reads, for rules that let the question vote on."""
        if self._selector.keeps_question:
            rows, limit = average_rows(q_raw, self._selector.query_rows), self._selector.query_rows
            kept = self._question.get(layer, rows[:, :0])
            self._question[layer] = torch.cat([kept, rows], dim=1)[:, -limit:]

    def choose(
        self, spec: LayerSpec, layout: Layout, q_raw: Tensor, scaling: float, *, recent: int, decoding: bool
    ) -> Tensor | None:
        """The rule's choice for a chunk's queries (Hq, T, D): (Hkv, K), or None when nothing is recalled.

        Args:
            recent: how many of the newest staged queries vote too.
            decoding: whether the question votes again, if the rule wants that.
        """
        if not layout.state.count:
            return None
        blocks = LogBlocks(spec, self._log, self._digests, self._workspace, layout.state, self._resident)
        chosen = None
        if layout.chosen:
            rows = self._queries(spec, q_raw, scaling, recent=recent, decoding=decoding)
            chosen = self._selector.choose(rows, blocks, layout.chosen)
        if self._witness is not None:
            none = torch.empty(spec.num_kv_heads, 0, dtype=torch.int64, device=q_raw.device)
            self._witness.saw(spec, q_raw, scaling, none if chosen is None else chosen, blocks)
        return chosen

    def _queries(
        self, spec: LayerSpec, q_raw: Tensor, scaling: float, *, recent: int, decoding: bool
    ) -> Tensor:
        """The chunk's queries at one middle distance, scaled: (Hq, T, D) -> (Hkv, G*M, D) fp32.

        Every block is scored at the same distance, since where it will stand is known only after the
        choice. Keys stay raw, so ``key_scale`` supplies what rotation would have multiplied them by.
        """
        if recent:
            newest = self._workspace.staging.queries_raw[spec.index][:, :recent]
            q_raw = torch.cat([newest, q_raw], dim=1)
        rows = average_rows(q_raw, self._selector.query_rows)  # (Hq, M, D)
        if decoding and spec.index in self._question:
            rows = torch.cat([self._question[spec.index], rows], dim=1)
        if spec.rotary is not None:
            distance = torch.full((rows.shape[1],), self._distance, device=rows.device)
            rows = spec.rotary.rotate(rows, distance) * spec.rotary.key_scale()
        return (rows.float() * scaling).reshape(spec.num_kv_heads, -1, spec.head_dim)


def average_rows(rows: Tensor, limit: int) -> Tensor:
    """At most ``limit`` rows: neighbours are averaged in equal runs. (Hq, T, D) -> (Hq, M, D)."""
    T = rows.shape[1]
    if limit >= T:
        return rows
    run = -(-T // limit)
    whole = T // run * run
    means: Tensor = rows[:, :whole].unflatten(1, (-1, run)).mean(2, dtype=torch.float32)
    if whole < T:
        means = torch.cat([means, rows[:, whole:].mean(1, keepdim=True, dtype=torch.float32)], dim=1)
    return means.to(rows.dtype)

"""Attention that tokens receive while they are in the window, for rules that represent blocks by it (InfLLM).

Per full layer and query head, the softmax probability that each token got from every query so far. When a
block leaves the window its scores are final: the places of its best tokens are kept, the scores dropped.
Both are committed with the turn, since nothing can compute them again. Bytes per turn:
4 * heads * tokens for the scores of the window and its unfinished block (``heads``: query heads of all full
layers together, ``tokens`` up to window + block - 1), and 2 * heads * representatives for each block closed.
Knows no positions and chooses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from agentmem.config import MemoryConfig
from agentmem.errors import StoreError
from agentmem.memory.blocks import BlockGrid
from agentmem.memory.placements import Sight
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import Selector, top_blocks
from agentmem.memory.source import RuleState, RuleStates


@runtime_checkable
class ReceivingSelector(Selector, Protocol):
    """A rule with running state: it represents blocks by their most attended tokens.

    It chooses from the queries of the chunk alone, never from earlier ones.
    """

    @property
    def representatives(self) -> int:
        """How many tokens represent a block, per query head."""
        ...

    def fitted(self, groups: int) -> ReceivingSelector:
        """The rule for a model with at most ``groups`` query heads per KV head."""
        ...

    def digest_received(self, keys_raw: Tensor, alive: Tensor | None, best: Tensor) -> Tensor:
        """Digests of n blocks: keys (Hkv, n, L, D), alive (n, L) or None, best (n, Hq, R) -> (Hkv, n, rows, D)."""
        ...


def fitted(selector: Selector, specs: Sequence[LayerSpec]) -> Selector:
    """The rule itself, or for a rule that represents blocks per query head the one made for this model."""
    if not isinstance(selector, ReceivingSelector):
        return selector
    return selector.fitted(
        max(spec.num_q_heads // spec.num_kv_heads for spec in specs if spec.window is None)
    )


class Received:
    """The scores of one turn, begun from what the turn before was committed with.

    Args:
        selector: the rule, fitted to the model.
        specs: the model's layers; those with a window of their own keep no scores.
        config: sinks, blocks, window and chunks.
        states: where the state comes from and goes to.
        kind: whose state it is.
        length: tokens in the log.
        device: where attention runs.

    Raises:
        DamagedError, StoreError: the saved state cannot be read, or is not of this log.
    """

    def __init__(
        self,
        selector: ReceivingSelector,
        specs: Sequence[LayerSpec],
        config: MemoryConfig,
        states: RuleStates,
        kind: str,
        length: int,
        device: torch.device,
    ) -> None:
        self._selector = selector
        self._specs = [spec for spec in specs if spec.window is None]
        self._grid = BlockGrid(config.sink_tokens, config.block_tokens)
        self._window = config.window_tokens
        self._representatives = min(selector.representatives, config.block_tokens)
        self._states = states
        self._kind = kind
        last = states.last(kind)
        blocks = self._grid.split(length, self._window).blocks
        self._closed = blocks if last is None else last.first + len(last.closed)
        self._first = self._closed
        self._best: list[Tensor] = []  # (sum of Hq, R) int16 per block closed in this turn
        held = 0 if last is None else last.running.shape[1]
        if last is not None and (last.start, last.start + held) != (self._start, max(self._start, length)):
            raise StoreError(
                f"the saved {kind} state speaks of tokens {last.start} to {last.start + held}, the log ends at "
                f"{length}; set another selector"
            )
        capacity = max(held, self._window + self._grid.size) + config.chunk_tokens
        self._scores = {
            spec.index: torch.zeros(spec.num_q_heads, capacity, device=device) for spec in self._specs
        }
        if last is not None and held:
            parts = last.running.split([spec.num_q_heads for spec in self._specs])
            for spec, part in zip(self._specs, parts, strict=True):
                self._scores[spec.index][:, :held] = part.to(device)

    @property
    def _start(self) -> int:
        """The token that the first column speaks of."""
        return self._grid.bounds(self._closed)[0]

    def add(self, layer: int, sight: Sight, received: Tensor) -> None:
        """Count what keys received (Hq, S) from one layer's chunk, where they are newer than the closed blocks."""
        skipped = max(0, self._start - sight.newest_token)
        mass = received[:, sight.newest + skipped :]
        at = sight.newest_token + skipped - self._start
        self._scores[layer][:, at : at + mass.shape[1]] += mass

    def close(self, length: int) -> None:
        """Blocks that lie behind the window of a log of ``length`` tokens are final now."""
        size, count = self._grid.size, self._grid.split(length, self._window).blocks
        for block in range(count - self._closed):
            heads = [self._best_of(spec, block * size) for spec in self._specs]
            self._best.append(torch.cat(heads).to("cpu", torch.int16))
        if count > self._closed:
            gone = (count - self._closed) * size
            for scores in self._scores.values():
                scores[:, :-gone] = scores[:, gone:].clone()
                scores[:, -gone:] = 0
            self._closed = count

    def truncate(self, length: int) -> None:
        """Tokens from ``length`` on are gone, with what they received; what they gave to others stays."""
        closed = min(self._closed, self._grid.whole_before(length))
        if closed < self._closed:  # into blocks whose scores were dropped: their rest starts from nothing
            self._best = self._best[: max(0, closed - self._first)]
            self._closed, self._first = closed, min(self._first, closed)
            for scores in self._scores.values():
                scores.zero_()
        for scores in self._scores.values():
            scores[:, max(0, length - self._start) :] = 0

    def digest(self, spec: LayerSpec, first: int, keys_raw: Tensor, alive: Tensor | None) -> Tensor:
        """Digests of closed blocks from ``first`` on: see :data:`agentmem.memory.log_blocks.MakeDigests`."""
        return self._selector.digest_received(
            keys_raw, alive, self._best_of_closed(spec, first, keys_raw.shape[1])
        )

    def _best_of_closed(self, spec: LayerSpec, first: int, count: int) -> Tensor:
        """Places of the best tokens: (count, Hq, R) int64, -1 where they are not known."""
        before = sum(other.num_q_heads for other in self._specs if other.index < spec.index)
        heads = slice(before, before + spec.num_q_heads)
        unknown = torch.full((spec.num_q_heads, self._representatives), -1, dtype=torch.int64)
        found = []
        for block in range(first, first + count):
            own = block - self._first
            row = self._best[own] if 0 <= own < len(self._best) else self._earlier.get(block)
            found.append(unknown if row is None else row[heads].long())
        return torch.stack(found)

    def keep(self, length: int) -> None:
        """Hand over what the turn, whose log ends at ``length``, shall be committed with."""
        held = max(0, length - self._start)
        width = sum(spec.num_q_heads for spec in self._specs) * self._representatives
        closed = (
            torch.stack(self._best).flatten(1) if self._best else torch.empty(0, width, dtype=torch.int16)
        )
        running = torch.cat([self._scores[spec.index][:, :held] for spec in self._specs]).cpu()
        self._states.keep(RuleState(self._kind, self._start, running, self._first, closed))

    @cached_property
    def _earlier(self) -> dict[int, Tensor]:
        """Best tokens of blocks that earlier turns closed; read only when digests must be made again."""
        found = {}
        for first, closed in self._states.closed(self._kind):
            for number, row in enumerate(closed):
                found[first + number] = row.view(-1, self._representatives)
        return found

    def _best_of(self, spec: LayerSpec, column: int) -> Tensor:
        """(Hq, R): the most attended tokens of a block, newest on equal scores; -1 where nothing was received."""
        scores = self._scores[spec.index][:, column : column + self._grid.size]
        best = top_blocks(scores, self._representatives)
        return torch.where(scores.amax(1, keepdim=True) > 0, best, -1)

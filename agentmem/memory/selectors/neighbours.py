"""Some of the places go to the blocks beside the best ones. EM-LLM's contiguity (arXiv 2407.09450).

What answers a question often lies just behind or before what resembles it, and a needle may be cut by a
block's bound. EM-LLM gives 30 % of its budget to direct neighbours of what was retrieved. Knows no log.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem.memory.selectors.base import BlockView, top_blocks
from agentmem.memory.selectors.two_stage import TwoStage

NEIGHBOURS_PERCENT = 30
"""Part of the places that neighbours get in EM-LLM, its best of 30, 50 and 70."""


class WithNeighbours:
    """The best blocks of a two-stage rule, then neighbours (±1) of those, the best one's first.

    A neighbour counts what the better of the chosen blocks beside it counts. Places that are left when
    all living neighbours are in go to the next best blocks.

    Args:
        name: what it is registered as.
        rule: scores the blocks.
        percent: part of the places that neighbours get, rounded down.
    """

    def __init__(self, name: str, rule: TwoStage, percent: int = NEIGHBOURS_PERCENT) -> None:
        self.name = name
        self.digest_kind = rule.digest_kind
        self.digest_rows = rule.digest_rows
        self.query_rows = rule.query_rows
        self.keeps_question = rule.keeps_question
        self.candidate_factor = rule.candidate_factor
        self._rule = rule
        self._percent = percent

    def digest(self, keys_raw: Tensor, alive: Tensor | None) -> Tensor:
        """See :meth:`Selector.digest`."""
        return self._rule.digest(keys_raw, alive)

    def choose(self, queries: Tensor, blocks: BlockView, num_chosen: int) -> Tensor:
        """See :meth:`Selector.choose`."""
        candidates, found = self._rule.score(queries, blocks, num_chosen)
        N = blocks.count
        scores = found.new_full((len(queries), N), -torch.inf).scatter(1, candidates, found)
        ranks = ranked(scores)
        best = top_blocks(ranks, num_chosen - num_chosen * self._percent // 100)
        chosen = torch.zeros_like(scores, dtype=torch.bool).scatter(1, best, True)
        beside = _beside(ranks.masked_fill(~chosen, -1))
        order = torch.where(beside >= 0, beside + N, ranks)
        if blocks.alive is not None:
            order = order.masked_fill(~blocks.alive, -1)
        return top_blocks(order.masked_fill(chosen, 2 * N), num_chosen)


def ranked(scores: Tensor) -> Tensor:
    """Each block's rank, 0 the worst, newer above older among equals: (Hkv, N) -> (Hkv, N) int64.

    Whole numbers, so that "these before all others" can be added to them and nothing is rounded.
    """
    places = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
    return torch.empty_like(places).scatter_(1, scores.argsort(dim=1, stable=True), places)


def _beside(ranks: Tensor) -> Tensor:
    """The better rank of the two blocks beside each one, (Hkv, N) -> (Hkv, N)."""
    padded = torch.nn.functional.pad(ranks, (1, 1), value=-1)
    return torch.maximum(padded[:, :-2], padded[:, 2:])

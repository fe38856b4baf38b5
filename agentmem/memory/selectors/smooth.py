"""A block counts its own mass and a part of its neighbours': what is found beside the best is lifted.

The soft form of EM-LLM's contiguity (arXiv 2407.09450): no places are set aside, so a neighbour comes in
only where the block beside it has more mass to lend than the weakest chosen block has. SnapKV (arXiv
2404.14469) pools attention over neighbouring tokens before it picks them, for the same reason. Knows no log.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem.memory.selectors.base import BlockView, top_blocks
from agentmem.memory.selectors.two_stage import TwoStage

LENT = 0.25
"""Part of its mass that a block lends to each of the two beside it."""


class Smooth:
    """The two-stage rule's scores, smoothed along the history. A block that is no candidate has none of its own."""

    name = "two-stage-smooth"

    def __init__(self) -> None:
        rule = TwoStage()
        self.digest_kind = rule.digest_kind
        self.digest_rows = rule.digest_rows
        self.query_rows = rule.query_rows
        self.keeps_question = rule.keeps_question
        self.candidate_factor = rule.candidate_factor
        self._rule = rule

    def digest(self, keys_raw: Tensor, alive: Tensor | None) -> Tensor:
        """See :meth:`Selector.digest`."""
        return self._rule.digest(keys_raw, alive)

    def choose(self, queries: Tensor, blocks: BlockView, num_chosen: int) -> Tensor:
        """See :meth:`Selector.choose`."""
        candidates, found = self._rule.score(queries, blocks, num_chosen)
        own = found.new_zeros(len(queries), blocks.count).scatter(1, candidates, found.clamp(min=0.0))
        padded = torch.nn.functional.pad(own, (1, 1))
        scores = own + LENT * (padded[:, :-2] + padded[:, 2:])
        if blocks.alive is not None:
            scores = scores.masked_fill(~blocks.alive, -1.0)
        return top_blocks(scores, num_chosen)

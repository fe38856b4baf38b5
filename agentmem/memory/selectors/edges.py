"""The blocks beside chosen ones: those that what was found there goes on in, or all of them.

EM-LLM (arXiv 2407.09450) gives a fixed part of its budget to both neighbours of all that was retrieved. In blocks of
16 tokens that wins, and is the default (``two-stage-pairs``: no leaning asked for, a block's whole mass counted). In
blocks of 32 most of those places bring nothing; there a neighbour is taken only if the attention mass inside the
chosen block leans to the edge between them: the quarter of the block nearest that edge holds a large part of it
(``two-stage-edges``). The masses of single tokens are known, since the second stage reads the candidates' keys.
Knows no log.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem.memory.selectors.base import BlockView
from agentmem.memory.selectors.exact import token_logits
from agentmem.memory.selectors.two_stage import TwoStage
from agentmem_kernels import best_and_neighbours, block_masses, in_one_kernel


class AcrossEdges:
    """The best blocks of the two-stage rule, then those beyond an edge that one of them leans to.

    Neighbours come in the order of the mass in the part beside them (the better of two where both blocks
    beside are chosen). Places that they do not need go to the next best blocks.

    Args:
        name: what it is registered as.
        leaning: part of a block's mass that its edge must exceed; 0 for every neighbour.
        percent: part of the places that such neighbours get at most, rounded down.
        parts: a block's edge is so many-th of its tokens.
        rule: finds candidates; S neighbouring blocks may share its digests.
    """

    def __init__(
        self,
        name: str = "two-stage-edges",
        *,
        leaning: float = 0.5,
        percent: int = 30,
        parts: int = 4,
        rule: TwoStage | None = None,
    ) -> None:
        rule = TwoStage() if rule is None else rule
        self.name = name
        self.digest_kind = rule.digest_kind
        self.digest_rows = rule.digest_rows
        self.query_rows = rule.query_rows
        self.keeps_question = rule.keeps_question
        self.candidate_factor = rule.candidate_factor
        self.digest_span = rule.digest_span
        self._rule = rule
        self._leaning = leaning
        self._percent = percent
        self._parts = parts

    def digest(self, keys_raw: Tensor, alive: Tensor | None) -> Tensor:
        """See :meth:`Selector.digest`."""
        return self._rule.digest(keys_raw, alive)

    def choose(self, queries: Tensor, blocks: BlockView, num_chosen: int) -> Tensor:
        """See :meth:`Selector.choose`."""
        N, sure = blocks.count, num_chosen - num_chosen * self._percent // 100
        candidates = self._rule.candidates(queries, blocks, num_chosen)
        found = edge_shares(queries, blocks, candidates, self._parts)
        return best_and_neighbours(found, candidates, N, num_chosen, sure, self._leaning, alive=blocks.alive)


def edge_shares(queries: Tensor, blocks: BlockView, ids: Tensor, parts: int = 4) -> Tensor:
    """Votes for whole blocks, their first ``parts``-th and their last: ids (Hkv, C) -> (3, Hkv, C) fp32.

    Each query row is a distribution over all tokens of these blocks, and rows are added up, so a block's
    vote is the one that :func:`~agentmem.memory.selectors.votes.group_sum` gives it. An edge has one
    token at least.
    """
    keys_raw = blocks.keys_raw(ids)  # (Hkv, C, L, D)
    edge = max(1, keys_raw.shape[2] // parts)
    if in_one_kernel(queries, keys_raw):
        return block_masses(queries, keys_raw, dead=blocks.dead_tokens(ids), edge=edge, scratch=blocks)
    logits = token_logits(queries, blocks, ids, keys_raw)  # (Hkv, M, C, L)
    highest = logits.amax((2, 3), keepdim=True)
    weights = logits.sub_(highest).exp_()
    masses = [part.sum(3) for part in (weights, weights[..., :edge], weights[..., -edge:])]
    total = masses[0].sum(2, keepdim=True)
    return torch.stack([(mass / total).sum(1) for mass in masses])

"""Coarse to fine: digests pick candidates, exact attention scores pick the blocks.

Stage one scores every block by its digest (the mean of its keys) and keeps four times more candidates
than needed. Stage two reads the candidates' real keys and scores each block by the log-sum-exp of q.k over
its tokens, which is the (log) attention mass the block would receive. In both stages each query row is a
distribution over blocks before rows are added up inside a KV group (see :mod:`.votes`). Knows no log and
no positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem.memory.selectors.base import QUERY_ROWS, BlockView, top_blocks
from agentmem.memory.selectors.by_digest import votes_by_digest
from agentmem.memory.selectors.digests import BlockDigest
from agentmem.memory.selectors.exact import block_masses
from agentmem.memory.selectors.mean_key import MeanKey
from agentmem.memory.selectors.votes import Vote, elect, group_sum


class TwoStage:
    """Candidates by digests, blocks by true mass; variants differ in the digest, how many candidates, how rows vote, or the rows.

    Args:
        name: what it is registered as.
        digest: of stage one.
        candidate_factor: times as many candidates as blocks are chosen.
        digest_span: S, neighbouring blocks that are candidates together, by one digest of all their tokens.
        vote: of both stages.
        query_rows: M, rows per query head that a chunk is averaged down to.
        keeps_question: whether the rows that the turn read vote again while decoding.
    """

    def __init__(
        self,
        name: str = "two-stage",
        *,
        digest: BlockDigest | None = None,
        candidate_factor: int = 4,
        digest_span: int = 1,
        vote: Vote = group_sum,
        query_rows: int = QUERY_ROWS,
        keeps_question: bool = False,
    ) -> None:
        self._digest: BlockDigest = MeanKey() if digest is None else digest
        self._vote = vote
        self.name = name
        self.digest_kind = self._digest.kind
        self.digest_rows = self._digest.rows
        self.candidate_factor = candidate_factor
        self.digest_span = digest_span
        self.query_rows = query_rows
        self.keeps_question = keeps_question

    def digest(self, keys_raw: Tensor, alive: Tensor | None) -> Tensor:
        """See :meth:`Selector.digest`."""
        return self._digest.make(keys_raw, alive)

    def choose(self, queries: Tensor, blocks: BlockView, num_chosen: int) -> Tensor:
        """See :meth:`Selector.choose`."""
        candidates = self.candidates(queries, blocks, num_chosen)
        living = None if blocks.alive is None else blocks.alive[candidates]
        scores = elect(block_masses(queries, blocks, candidates), living, blocks, self._vote)
        return candidates.gather(1, top_blocks(scores, num_chosen))

    def candidates(self, queries: Tensor, blocks: BlockView, num_chosen: int) -> Tensor:
        """What stage one keeps for K places: (Hkv, C) int64, ascending."""
        Hkv, span, num_candidates = len(queries), self.digest_span, self.candidate_factor * num_chosen
        if num_candidates >= blocks.count:
            return torch.arange(blocks.count, device=queries.device).expand(Hkv, -1)
        living = None if blocks.alive is None else blocks.alive.view(-1, span).any(1)
        votes = votes_by_digest(queries, blocks, self._digest, self._vote, living)
        spans = top_blocks(votes, -(-num_candidates // span))
        return (spans[..., None] * span + torch.arange(span, device=spans.device)).flatten(1)

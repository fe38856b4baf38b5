"""Coarse to fine: mean-key digests pick candidates, exact attention scores pick the blocks.

Stage one scores every block by the mean of its keys and keeps four times more candidates than needed.
Stage two reads the candidates' real keys and scores each block by the log-sum-exp of q.k over its tokens,
which is the (log) attention mass the block would receive. In both stages each query row is a
distribution (softmax over blocks) before rows are added up inside a KV group, so no large-norm head
decides for the others: the weak spot of InfLLM's raw sum over heads (arXiv 2402.04617; the per-group
softmax is InfLLM-V2's, arXiv 2509.24663). Knows no log and no positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem.memory.selectors.base import QUERY_ROWS, BlockView, top_blocks


class TwoStage:
    """The default rule."""

    name = "two-stage"
    digest_kind = "mean"
    digest_rows = 1
    query_rows = QUERY_ROWS
    keeps_question = False

    def __init__(self, candidate_factor: int = 4) -> None:
        self.candidate_factor = candidate_factor

    def digest(self, keys_raw: Tensor, alive: Tensor | None) -> Tensor:
        """Mean raw key over the living tokens of each block; zeros for a block with none."""
        if alive is None:
            return (keys_raw.float().sum(2) / keys_raw.shape[2]).to(keys_raw.dtype)[:, :, None]
        # The same sums as above: a block's digest must not depend on which others are digested with it.
        total = (keys_raw.float() * alive[None, :, :, None]).sum(2)
        return (total / alive.sum(-1).clamp(min=1)[None, :, None]).to(keys_raw.dtype)[:, :, None]

    def choose(self, queries: Tensor, blocks: BlockView, num_chosen: int) -> Tensor:
        """See :meth:`Selector.choose`."""
        num_candidates = self.candidate_factor * num_chosen
        if num_candidates < blocks.count:
            candidates = top_blocks(_coarse(queries, blocks), num_candidates)  # (Hkv, C)
        else:
            candidates = torch.arange(blocks.count, device=queries.device).expand(queries.shape[0], -1)
        best = top_blocks(_exact(queries, blocks, candidates), num_chosen)
        return candidates.gather(1, best)


def _coarse(queries: Tensor, blocks: BlockView) -> Tensor:
    """Score of every block by its digest: (Hkv, M, D) -> (Hkv, N)."""
    Hkv, M, _ = queries.shape
    logits = queries.new_empty(Hkv, M, blocks.count)
    narrow = queries.to(blocks.digests()[0].dtype)
    start = 0
    for part in (found[:, :, 0] for found in blocks.digests()):
        stop = start + part.shape[1]
        logits[:, :, start:stop] = torch.bmm(narrow, part.transpose(1, 2))
        start = stop
    return _votes(logits, blocks.alive)


def _exact(queries: Tensor, blocks: BlockView, candidates: Tensor) -> Tensor:
    """Score of candidate blocks by true attention mass: (Hkv, C) ids -> (Hkv, C)."""
    Hkv, M, _ = queries.shape
    keys_raw = blocks.keys_raw(candidates)  # (Hkv, C, L, D)
    C, L = keys_raw.shape[1:3]
    logits = torch.bmm(queries.to(keys_raw.dtype), keys_raw.reshape(Hkv, C * L, -1).transpose(1, 2)).float()
    logits = logits.view(Hkv, M, C, L)
    dead = blocks.dead_tokens(candidates)
    if dead is not None:
        logits = logits.masked_fill(dead[:, None], -torch.inf)
    alive = None if blocks.alive is None else blocks.alive[candidates]
    return _votes(logits.logsumexp(-1), alive)


def _votes(logits: Tensor, alive: Tensor | None) -> Tensor:
    """Each query row shares one vote among the blocks: (Hkv, M, N) -> (Hkv, N). Dead blocks get -1."""
    if alive is None:
        return logits.softmax(-1).sum(1)
    living = alive if alive.dim() == 2 else alive.expand(logits.shape[0], -1)  # (Hkv, N)
    votes = logits.masked_fill(~living[:, None], -torch.inf).softmax(-1).sum(1)
    return votes.masked_fill(~living, -1.0)

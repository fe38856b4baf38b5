"""What all query rows together give to digests: logits and a vote, or both in one kernel. Knows no rule."""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem.memory.selectors.base import BlockView
from agentmem.memory.selectors.digests import BlockDigest
from agentmem.memory.selectors.mean_key import MeanKey
from agentmem.memory.selectors.votes import Vote, elect, group_sum
from agentmem_kernels import block_masses, in_one_kernel


def votes_by_digest(
    queries: Tensor, blocks: BlockView, digest: BlockDigest, vote: Vote, living: Tensor | None
) -> Tensor:
    """Scores of digests: queries (Hkv, M, D) -> (Hkv, N / S) fp32; -inf where ``living`` (N / S,) is False.

    The common case, one vector per digest and the rows of a group added up, writes no logits where a kernel does both.
    """
    parts = blocks.digests()
    if isinstance(digest, MeanKey) and vote is group_sum and in_one_kernel(queries, *parts):
        if living is None:
            return block_masses(queries, parts, scratch=blocks)[0]
        dead = ~living
        everywhere = dead.expand(len(queries), -1)[..., None].contiguous()
        return block_masses(queries, parts, dead=everywhere, scratch=blocks)[0].masked_fill(dead, -torch.inf)
    in_heads = None if living is None else living.expand(len(queries), -1)
    return elect(digest.logits(queries, blocks), in_heads, blocks, vote)

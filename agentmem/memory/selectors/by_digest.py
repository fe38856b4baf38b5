"""What all query rows together give to digests: logits and a vote, or on a GPU both at once. Knows no rule."""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem.memory.selectors.base import BlockView
from agentmem.memory.selectors.digests import BlockDigest
from agentmem.memory.selectors.mean_key import MeanKey
from agentmem.memory.selectors.votes import Vote, elect, group_sum
from agentmem_kernels import accelerated, block_masses


def votes_by_digest(
    queries: Tensor, blocks: BlockView, digest: BlockDigest, vote: Vote, living: Tensor | None
) -> Tensor:
    """Scores of digests: queries (Hkv, M, D) -> (Hkv, N / S) fp32; -inf where ``living`` (N / S,) is False.

    On a GPU the common case, one vector per digest and the rows of a group added up, writes no logits.
    """
    if isinstance(digest, MeanKey) and vote is group_sum and accelerated(queries):
        parts = blocks.digests()
        vectors = parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)
        if living is None:
            return block_masses(queries, vectors)[0]
        dead = ~living
        everywhere = dead.expand(len(queries), -1)[..., None].contiguous()
        return block_masses(queries, vectors, dead=everywhere)[0].masked_fill(dead, -torch.inf)
    in_heads = None if living is None else living.expand(len(queries), -1)
    return elect(digest.logits(queries, blocks), in_heads, blocks, vote)

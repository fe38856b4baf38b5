"""From logits of query rows to one score per block and KV head: how the rows of a group agree.

A vote takes logits (Hkv, M, N) and the view whose reused memory it may work in, and returns scores
(Hkv, N); M counts the rows of all query heads of the group. Knows no keys and no digests.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from agentmem.memory.selectors.base import BlockView

Vote = Callable[[Tensor, BlockView], Tensor]


def group_sum(logits: Tensor, blocks: BlockView) -> Tensor:
    """Each row is a distribution over blocks, and the rows of a KV group are added up.

    So no large-norm head decides for the others: the weak spot of InfLLM's raw sum (arXiv 2402.04617).
    The softmax per head and the sum inside the group alone are InfLLM-V2's (arXiv 2509.24663).
    """
    return _shares(logits, blocks).sum(1)


def layer_sum(logits: Tensor, blocks: BlockView) -> Tensor:
    """The soft vote of all heads of the layer: one set of blocks for all of them, so fewer reads.

    TokenSelect's rule (arXiv 2411.02886), for blocks.
    """
    return _shares(logits, blocks).sum(dim=(0, 1)).expand(len(logits), -1)


def layer_raw_sum(logits: Tensor, blocks: BlockView) -> Tensor:
    """Raw logits added up over all heads, without a softmax: InfLLM's aggregation (arXiv 2402.04617)."""
    return logits.sum(dim=(0, 1)).expand(len(logits), -1)


def elect(logits: Tensor, living: Tensor | None, blocks: BlockView, vote: Vote) -> Tensor:
    """Scores by a vote among living blocks; -inf for the others.

    ``logits`` (Hkv, M, N) fp32 are overwritten; ``living`` is (Hkv, N) bool, or None when all live.
    """
    if living is None:
        return vote(logits, blocks)
    dead = ~living
    return vote(logits.masked_fill_(dead[:, None], -torch.inf), blocks).masked_fill(dead, -torch.inf)


def _shares(logits: Tensor, blocks: BlockView) -> Tensor:
    return torch.softmax(logits, -1, out=blocks.room("shares", logits.shape, logits.dtype))

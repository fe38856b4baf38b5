"""Blocks chosen by chance, the same ones each time: the lower bound that rules are measured against.

Seeded by layer, KV head and number of blocks, in whole numbers, so that a resumed agent chooses as one
that never stopped, on any machine. Knows no keys and no queries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem.memory.selectors.base import QUERY_ROWS, BlockView, top_blocks
from agentmem.memory.selectors.mean_key import MeanKey

_MASK = (1 << 31) - 1


class RandomBlocks:
    """K of the living blocks, each as likely as any other. Its digests are mean keys, unused."""

    name = "random"
    digest_kind = MeanKey.kind
    digest_rows = MeanKey.rows
    query_rows = QUERY_ROWS
    digest_span = 1
    keeps_question = False
    candidate_factor = 0

    def digest(self, keys_raw: Tensor, alive: Tensor | None) -> Tensor:
        """Those of :class:`MeanKey`, so that switching between this rule and the default keeps them."""
        return MeanKey().make(keys_raw, alive)

    def choose(self, queries: Tensor, blocks: BlockView, num_chosen: int) -> Tensor:
        """See :meth:`Selector.choose`."""
        ids = torch.arange(blocks.count, device=queries.device)
        heads = torch.arange(len(queries), device=queries.device)[:, None]
        seed = _mixed(_mixed(_mixed(heads + 1) + blocks.layer) + blocks.count)
        draw = _mixed(_mixed(seed + ids)).double()  # (Hkv, N)
        if blocks.alive is not None:
            draw = draw.masked_fill(~blocks.alive, -1.0)
        return top_blocks(draw, num_chosen)


def _mixed(x: Tensor) -> Tensor:
    """A whole number below 2^31 to another, one to one and far apart for neighbours; int64.

    Multiplication by an odd number and xor with a right shift are both one to one modulo 2^31.
    """
    x = x & _MASK
    for factor in (0x2C1B3C6D, 0x297A2D39):
        x = x ^ (x >> 15)
        x = (x * factor) & _MASK
    return x ^ (x >> 15)

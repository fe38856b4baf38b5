"""What a digest is, and how queries meet the digests of all blocks: one product per mapped part.

One digest, one file. Knows no rule: what is made of the logits is a vote's affair.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from agentmem.memory.selectors.base import BlockView


class BlockDigest(Protocol):
    """R small vectors per block and KV head, and the logit that a query row gives a block by them."""

    @property
    def kind(self) -> str:
        """Names what is computed; stored with the digests."""
        ...

    @property
    def rows(self) -> int:
        """R. A digest takes R / (2 L) of the bytes of the K/V of a block of L tokens."""
        ...

    def make(self, keys_raw: Tensor, alive: Tensor | None) -> Tensor:
        """Keys (Hkv, n, L, D), alive (n, L) bool or None -> (Hkv, n, R, D) in the keys' dtype.

        A block's digest depends on its own tokens alone, never on which others are made with it.
        """
        ...

    def logits(self, queries: Tensor, blocks: BlockView) -> Tensor:
        """Queries (Hkv, M, D) -> (Hkv, M, N / S) fp32, in the room "logits"."""
        ...


def scan(queries: Tensor, blocks: BlockView, lanes: int = 1) -> Tensor:
    """The best product of a query row with any of a digest's ``lanes`` vectors.

    Queries are (Hkv, M, W); a digest's R*D numbers are read as ``lanes`` vectors of W.
    Returns (Hkv, M, N / S) fp32 in the room "logits".
    """
    Hkv, M, W = queries.shape
    parts = blocks.digests()
    narrow = queries.to(parts[0].dtype)
    logits = blocks.room("logits", (Hkv, M, blocks.digested), torch.float32)
    start = 0
    for part in parts:
        n = part.shape[1]
        vectors = part.reshape(Hkv, n, lanes, W)
        if lanes > 1:  # lane by lane, so that the best is found along whole rows: twice as fast
            vectors = blocks.room("vectors", (Hkv, lanes, n, W), part.dtype).copy_(vectors.transpose(1, 2))
        products = blocks.room("products", (Hkv, M, lanes * n), narrow.dtype)
        torch.bmm(narrow, vectors.reshape(Hkv, lanes * n, W).transpose(1, 2), out=products)
        best = products if lanes == 1 else products.view(Hkv, M, lanes, n).amax(2)
        logits[:, :, start : start + n].copy_(best)
        start += n
    return logits


def living_mean(x: Tensor, alive: Tensor | None) -> Tensor:
    """Mean of (Hkv, n, L, D) fp32 over living tokens: (Hkv, n, D); zeros for a block with none."""
    if alive is None:
        return x.sum(2) / x.shape[2]
    # The same sums as above: a block's digest must not depend on which others are digested with it.
    total = (x * alive[None, :, :, None]).sum(2)
    return total / alive.sum(-1).clamp(min=1)[None, :, None]

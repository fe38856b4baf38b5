"""InfLLM's own rule (Xiao et al., arXiv 2402.04617 §3.1-3.2), as its released code does it.

A block is represented by the mean of its four most *attended* keys, per query head: attention received is
the softmax probability that a token got from all queries while it was in the local window. (The paper's
formula 2 averages raw dot products instead.) A block's score is the dot product of the chunk's mean query
with that mean key, summed over all heads as it is, neither scaled nor normalised, so a head with large
keys outvotes the others; one set of blocks serves all heads of a layer. The query is taken a window away.

What still deviates from the released code, none of it by intent of the rule: scores are added up, and
blocks compared, in fp32 instead of the model's dtype; equal scores go to the newest token or block; the
model's own rotation (YaRN and so on) is used where that code knows a base alone; sliding layers stay
local. A block that was closed while another rule was in force, or whose turn was forgotten, has no
received attention: it is represented by the mean of its keys. Knows no log and keeps no scores itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem.memory.selectors.base import BlockView, top_blocks
from agentmem.memory.selectors.digests import living_mean

REPRESENTATIVES = 4


class InfLLM:
    """One set of blocks per layer, by raw sums. ``groups``: query heads per KV head that digests are made for."""

    name = "infllm"
    digest_kind = f"infllm-{REPRESENTATIVES}"
    query_rows = 1
    digest_span = 1
    keeps_question = False
    candidate_factor = 0
    representatives = REPRESENTATIVES

    def __init__(self, groups: int = 1) -> None:
        self.digest_rows = groups

    def fitted(self, groups: int) -> InfLLM:
        """The rule for a model with at most ``groups`` query heads per KV head."""
        return InfLLM(groups)

    def digest(self, keys_raw: Tensor, alive: Tensor | None) -> Tensor:
        """The mean key for every query head: what is left where no received attention is known."""
        mean = living_mean(keys_raw.float(), alive).to(keys_raw.dtype)
        return mean[:, :, None].expand(-1, -1, self.digest_rows, -1)

    def digest_received(self, keys_raw: Tensor, alive: Tensor | None, best: Tensor) -> Tensor:
        """Mean of the representative keys, per query head.

        Args:
            keys_raw: (Hkv, n, L, D).
            alive: (n, L) bool, or None; forgotten tokens represent nothing.
            best: (n, Hq, R) int64, places in the block; -1: not known.

        Returns:
            (Hkv, n, rows, D); rows beyond this layer's query heads per KV head are zero.
        """
        Hkv, n, _, D = keys_raw.shape
        count = best.shape[2]
        places = best.view(n, Hkv, -1, count).permute(1, 0, 2, 3)  # (Hkv, n, G, R)
        counts = places >= 0
        places = places.clamp(min=0)
        if alive is not None:
            counts &= alive[None, :, None].expand(Hkv, n, places.shape[2], -1).gather(3, places)
        index = places.flatten(2)[..., None].expand(-1, -1, -1, D)
        picked = keys_raw.gather(2, index).float().view(*places.shape, D)
        total = torch.zeros_like(picked[:, :, :, 0])
        for place in range(count):  # one by one: a block's digest must not depend on which others are made
            total += picked[:, :, :, place] * counts[:, :, :, place, None]
        known = counts.sum(3)[..., None]  # (Hkv, n, G, 1)
        digests = torch.zeros(Hkv, n, self.digest_rows, D, dtype=keys_raw.dtype)
        mean = living_mean(keys_raw.float(), alive)[:, :, None]
        digests[:, :, : places.shape[2]] = torch.where(known > 0, total / known.clamp(min=1), mean)
        return digests

    def choose(self, queries: Tensor, blocks: BlockView, num_chosen: int) -> Tensor:
        """See :meth:`Selector.choose`; every row of the answer is the same."""
        Hkv, _, D = queries.shape
        rows = queries if self.digest_rows > 1 else queries.sum(1, keepdim=True)  # (Hkv, G, D)
        flat = rows.reshape(Hkv, -1, 1)
        scores = blocks.room("scores", (blocks.count,), torch.float32)
        start = 0
        for part in blocks.digests():  # (Hkv, n, R, D)
            n = part.shape[1]
            wide = blocks.room("digests", (Hkv, n, rows.shape[1], D), torch.float32)
            wide.copy_(part[:, :, : rows.shape[1]])
            scores[start : start + n] = torch.bmm(wide.flatten(2), flat).sum(0)[:, 0]
            start += n
        if blocks.alive is not None:
            scores.masked_fill_(~blocks.alive, -torch.inf)
        return top_blocks(scores[None], num_chosen).expand(Hkv, -1)

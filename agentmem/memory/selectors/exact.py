"""The true attention mass of blocks, from their real keys; as a rule of its own it reads all of them.

The (log) mass that a block would receive from a query row is the log-sum-exp of q.k over its living
tokens. Scoring every block so is the upper bound that cheaper rules are measured against ("exact top-k");
its cost grows with the history. Knows no log and no positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem.memory.selectors.base import QUERY_ROWS, BlockView, top_blocks
from agentmem.memory.selectors.mean_key import MeanKey
from agentmem.memory.selectors.votes import elect, group_sum


def block_masses(queries: Tensor, blocks: BlockView, ids: Tensor) -> Tensor:
    """Log of the attention mass of chosen blocks: (Hkv, M, D) and ids (Hkv, C) -> (Hkv, M, C) fp32.

    -inf for a block with no living token.
    """
    return _log_sum_exp(token_logits(queries, blocks, ids, blocks.keys_raw(ids)))


def token_logits(queries: Tensor, blocks: BlockView, ids: Tensor, keys_raw: Tensor) -> Tensor:
    """What queries (Hkv, M, D) give each token of blocks (Hkv, C), whose keys are (Hkv, C, L, D).

    (Hkv, M, C, L) fp32, -inf for forgotten ones; in the room "products" or "token-logits".
    """
    Hkv, M, _ = queries.shape
    C, L = keys_raw.shape[1:3]
    products = blocks.room("products", (Hkv, M, C * L), keys_raw.dtype)
    torch.bmm(queries.to(keys_raw.dtype), keys_raw.reshape(Hkv, C * L, -1).transpose(1, 2), out=products)
    logits = products.view(Hkv, M, C, L)
    if logits.dtype != torch.float32:
        logits = blocks.room("token-logits", logits.shape, torch.float32).copy_(logits)
    dead = blocks.dead_tokens(ids)
    if dead is not None:
        logits.masked_fill_(dead[:, None], -torch.inf)
    return logits


class Exact:
    """Every block by its true mass, read in batches. Its digests are mean keys, unused."""

    name = "exact"
    digest_kind = MeanKey.kind
    digest_rows = MeanKey.rows
    query_rows = QUERY_ROWS
    digest_span = 1
    keeps_question = False
    candidate_factor = 4

    def digest(self, keys_raw: Tensor, alive: Tensor | None) -> Tensor:
        """Those of :class:`MeanKey`, so that switching between this rule and the default keeps them."""
        return MeanKey().make(keys_raw, alive)

    def choose(self, queries: Tensor, blocks: BlockView, num_chosen: int) -> Tensor:
        """See :meth:`Selector.choose`."""
        Hkv, M, _ = queries.shape
        N, batch = blocks.count, self.candidate_factor * num_chosen
        masses = blocks.room("logits", (Hkv, M, N), torch.float32)
        for start in range(0, N, batch):
            ids = torch.arange(start, min(start + batch, N), device=queries.device).expand(Hkv, -1)
            masses[:, :, start : start + batch] = block_masses(queries, blocks, ids)
        living = None if blocks.alive is None else blocks.alive.expand(Hkv, -1)
        return top_blocks(elect(masses, living, blocks, group_sum), num_chosen)


def _log_sum_exp(logits: Tensor) -> Tensor:
    """``logits.logsumexp(-1)``, overwriting the logits instead of taking new memory of their size."""
    highest = logits.amax(-1)
    highest = highest.masked_fill(highest == -torch.inf, 0.0)
    return logits.sub_(highest[..., None]).exp_().sum(-1).log_().add_(highest)

"""How much of the attention to evicted tokens each block would get, from the true queries and keys of one layer.

Evicted is what lies in neither sinks nor window: the blocks. A query meets every raw key at one middle distance, the
convention by which selections are scored (`WorkingMemory`), but each token asks for itself; nothing is averaged before
the softmax. A cap on logits and learned attention sinks are left out, as they are there. Knows no rule and no text.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import BlockView

TILE_TOKENS = 64
"""Query tokens scored at once, so that memory does not grow with the question."""
TILE_KEYS = 2048
"""Keys scored at once, so that memory grows with the number of blocks alone."""
MOST_BLOCKS = 64
"""Keys of so many blocks may be asked for at once."""


def mean_block_mass(
    spec: LayerSpec, queries_raw: Tensor, scaling: float, blocks: BlockView, distance: int
) -> Tensor:
    """Softmax mass of every block among all living evicted tokens, per KV head.

    Args:
        spec: the layer.
        queries_raw: (Hq, T, D) before RoPE, in the model's dtype.
        scaling: factor on q.k.
        blocks: all N blocks.
        distance: tokens between a query and every key.

    Returns:
        (Hkv, N) fp32 on the CPU, the mean over the T tokens and the G query heads of a KV head. Rows add up to 1, or
        to 0 where nothing lives.
    """
    queries = placed(spec, queries_raw, scaling, distance)  # (Hkv, G, T, D)
    Hkv, _, T, _ = queries.shape
    total = torch.zeros(Hkv, blocks.count, device=queries.device)
    for start in range(0, T, TILE_TOKENS):
        rows = queries[:, :, start : start + TILE_TOKENS].flatten(1, 2)  # (Hkv, R, D)
        total += _block_logits(rows, blocks).softmax(-1).nan_to_num_(0.0).sum(1)
    return (total / (queries.shape[1] * T)).cpu()


def placed(spec: LayerSpec, queries_raw: Tensor, scaling: float, distance: int) -> Tensor:
    """Queries that meet raw keys as if ``distance`` tokens away, scaled: (Hkv, G, T, D) fp32."""
    rows = queries_raw
    if spec.rotary is not None:
        places = torch.full((rows.shape[1],), distance, device=rows.device)
        rows = spec.rotary.rotate(rows, places) * spec.rotary.key_scale()
    return (rows.float() * scaling).view(spec.num_kv_heads, -1, rows.shape[1], spec.head_dim)


def _block_logits(rows: Tensor, blocks: BlockView) -> Tensor:
    """Log of the summed exponentials over each block's living keys: (Hkv, R, D) -> (Hkv, R, N) fp32."""
    Hkv, R, _ = rows.shape
    found = rows.new_empty(Hkv, R, blocks.count)
    start, step = 0, 1
    while start < blocks.count:
        stop = min(start + step, blocks.count)
        ids = torch.arange(start, stop, device=rows.device).expand(Hkv, -1)
        keys_raw = blocks.keys_raw(ids)  # (Hkv, C, L, D)
        C, L = keys_raw.shape[1:3]
        logits = torch.bmm(rows, keys_raw.flatten(1, 2).float().transpose(1, 2)).view(Hkv, R, C, L)
        dead = blocks.dead_tokens(ids)
        if dead is not None:
            logits.masked_fill_(dead[:, None], -torch.inf)
        torch.logsumexp(logits, -1, out=found[:, :, start:stop])
        start, step = stop, max(1, min(MOST_BLOCKS, TILE_KEYS // L))
    return found

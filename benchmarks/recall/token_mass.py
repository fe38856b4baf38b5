"""How much of the attention to evicted tokens each single token would get: :mod:`.block_mass` without blocks.

The same convention: true queries, each for itself, at one middle distance from every raw key; forgotten tokens get
nothing. Knows no rule and no text.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import BlockView
from benchmarks.recall.block_mass import MOST_BLOCKS, placed

TILE_LOGITS = 1 << 25
"""Logits held at once, so that memory grows with the history alone and not with the question too."""


def mean_token_mass(
    spec: LayerSpec, queries_raw: Tensor, scaling: float, blocks: BlockView, distance: int
) -> Tensor:
    """Softmax mass of every token of all N blocks, per KV head.

    Args:
        spec: the layer.
        queries_raw: (Hq, T, D) before RoPE, in the model's dtype.
        scaling: factor on q.k.
        blocks: all N blocks of L tokens.
        distance: tokens between a query and every key.

    Returns:
        (Hkv, N*L) fp32 on the queries' device, the mean over the T tokens and the G query heads of a KV head. Rows
        add up to 1, or to 0 where nothing lives.
    """
    rows = placed(spec, queries_raw, scaling, distance).flatten(1, 2)  # (Hkv, R, D)
    keys_raw, dead = _tokens(blocks, spec.num_kv_heads, rows.device)
    Hkv, n, _ = keys_raw.shape
    total = torch.zeros(Hkv, n, device=rows.device)
    for part in rows.split(max(1, TILE_LOGITS // (Hkv * n)), dim=1):
        logits = torch.bmm(part, keys_raw.transpose(1, 2))
        if dead is not None:
            logits.masked_fill_(dead[:, None], -torch.inf)
        total += logits.softmax(-1).nan_to_num_(0.0).sum(1)
    return total / rows.shape[1]


def _tokens(blocks: BlockView, Hkv: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """All raw keys (Hkv, n, D) fp32, and which are forgotten (Hkv, n) or None; moved in tiles."""
    keys, dead = [], []
    for start in range(0, blocks.count, MOST_BLOCKS):
        stop = min(start + MOST_BLOCKS, blocks.count)
        ids = torch.arange(start, stop, device=device).expand(Hkv, -1)
        keys.append(blocks.keys_raw(ids).flatten(1, 2).float().clone())  # valid until the next call
        flags = blocks.dead_tokens(ids)
        if flags is not None:
            dead.append(flags.flatten(1))
    return torch.cat(keys, dim=1), torch.cat(dead, dim=1) if dead else None

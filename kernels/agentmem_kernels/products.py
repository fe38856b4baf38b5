"""Attention of many bfloat16 queries on a CPU, written as matrix products.

torch's fused attention runs at a fifth of what the same CPU's bfloat16 products reach, and it is more than half of
what reading costs. Written out, scores have to be kept in fp32, which costs what is won, or in bfloat16, which cannot
tell large logits apart. Here scores are computed twice: the first time only their largest in each row is used, the
second time it is subtracted inside the product, before the result is rounded. Logits near the largest, which have the
weight, are then small numbers, and bfloat16 is fine for them. Knows no caches; :mod:`.fast` says when it is used.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from agentmem_kernels.scratch import Scratch

SUMS = 8
"""Columns that a row's weights are added up in: each is rounded by itself, so their sum is better than one."""


@cache
def pays() -> bool:
    """Whether this CPU multiplies bfloat16 fast with AVX-512; with AMX torch's fused attention is as fast."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16")) and not able.get("amx_bf16")


def attend_by_products(
    q: Tensor, keys: Tensor, values: Tensor, *, scaling: float, mask: Tensor | None, scratch: Scratch
) -> Tensor:
    """Attention of q (B, Hq, T, D) to keys and values (B, Hkv, S, D), all bfloat16: (B, Hq, T, D) bfloat16.

    ``mask`` is additive, (..., T, S), bfloat16. A row whose keys are all masked is NaN.
    """
    B, Hq, T, D = q.shape
    Hkv, S = keys.shape[1:3]
    G = Hq // Hkv
    exact = math.frexp(scaling)[0] == 0.5  # a power of two: queries can be scaled without rounding
    rows = q * scaling if exact else q
    bias = q.new_zeros(1, 1, 1, 1) if mask is None else mask if exact else mask / scaling
    bias = bias.expand(B, Hq, T, S)
    weights = scratch.room("attention-weights", (G * T, S), q.dtype)
    summed = _summing(S, D, scratch)
    out = torch.empty_like(q)
    for b in range(B):
        for h in range(Hkv):
            heads = slice(h * G, (h + 1) * G)
            _weigh(weights, rows[b, heads], keys[b, h], bias[b, heads], None if exact else scaling)
            summed[:, :D] = values[b, h]
            found = torch.mm(weights, summed).float()
            total = found[:, D:].sum(1, keepdim=True)
            out[b, heads] = found[:, :D].div_(total).view(G, T, D)
    return out


def _weigh(weights: Tensor, q: Tensor, keys: Tensor, bias: Tensor, scaling: float | None) -> None:
    """exp(q.k + bias - largest) of q (G, T, D) and keys (S, D), into weights (G * T, S)."""
    G, T, D = q.shape
    q, grouped = q.reshape(G * T, D), weights.view(G, T, -1)
    grouped.copy_(bias)
    weights.addmm_(q, keys.t())
    largest = grouped.amax(2, keepdim=True)
    torch.sub(bias, largest, out=grouped)
    weights.addmm_(q, keys.t())
    if scaling is not None:
        weights.mul_(scaling)
    weights.exp_()


def _summing(S: int, D: int, scratch: Scratch) -> Tensor:
    """Room for values (S, D), beside columns that add up an eighth of the rows each: (S, D + SUMS)."""
    summed = scratch.room("attention-values", (S, D + SUMS), torch.bfloat16)
    column = torch.arange(S) * SUMS // S
    summed[:, D:] = column[:, None] == torch.arange(SUMS)
    return summed

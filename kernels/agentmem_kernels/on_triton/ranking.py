"""Whole numbers that sort as (score, id) pairs do. See :mod:`agentmem_kernels.ranking`."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from agentmem_kernels.on_triton.trial import around

BLOCKS = 1024
"""Blocks of one program."""


@triton.jit(do_not_specialize=["N"])
def _keys(scores, alive, out, N, scores_h, BN: tl.constexpr, FLOAT: tl.constexpr, ALIVE: tl.constexpr):
    """The score's place among all fp32 numbers in the upper half, the block's number in the lower."""
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    h = tl.program_id(1).to(tl.int64)
    score = tl.load(scores + h * scores_h + n, mask=n < N, other=0)
    if FLOAT:
        bits = (score + 0.0).to(tl.int32, bitcast=True)  # -0.0 equals 0.0
        ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    else:
        ordered = score.to(tl.int32)
    if ALIVE:
        living = tl.load(alive + n, mask=n < N, other=0)
        ordered = tl.where(living != 0, ordered, -2147483648)
    tl.store(out + h * N + n, (ordered.to(tl.int64) << 32) | n.to(tl.int64), mask=n < N)


def sort_keys(scores: Tensor, alive: Tensor | None) -> Tensor:
    """See :func:`agentmem_kernels.ranking.sort_keys`; shapes are checked there."""
    H, N = scores.shape
    out = scores.new_empty((H, N), dtype=torch.int64)
    with around(scores):
        _keys[(triton.cdiv(N, BLOCKS), H)](
            scores,
            scores if alive is None else alive.view(torch.uint8),
            out,
            N,
            scores.stride(0),
            BN=BLOCKS,
            FLOAT=scores.is_floating_point(),
            ALIVE=alive is not None,
        )
    return out

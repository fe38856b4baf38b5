"""Softmax mass per block in two launches, without writing a logit. See :mod:`agentmem_kernels.masses`.

The first launch finds the highest logit and the sum of exponentials of every query row, in up to ``SPLITS`` parts
of the blocks; the second makes the products again and adds up what each block gets over the rows. Making them
twice reads 2 D bytes a key; keeping them would write and read 4 bytes a key for each of 100 rows.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from agentmem_kernels.backends import interpreting
from agentmem_kernels.on_triton.trial import around

SPLITS = 32
"""Parts of the blocks that the first launch works on side by side, at most; a power of two."""
COLUMNS = 64
"""Keys that one program multiplies with at a time."""
ROWS = 64
"""Query rows likewise, at most."""


# fmt: off
@triton.jit
def _logits(
    q, keys, index, dead, h, first_row, tile, M, C, q_h, q_m, keys_h, keys_c, keys_l, W: tl.constexpr,
    BW: tl.constexpr, L: tl.constexpr, BL: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr,
    INDEX: tl.constexpr, DEAD: tl.constexpr, WIDEN: tl.constexpr,
):
    """Logits (BM, BC * BL) fp32 of one tile of blocks; -inf where there is no key, or a dead one."""
    m = first_row + tl.arange(0, BM)
    w = tl.arange(0, BW)
    n = tl.arange(0, BC * BL)
    c = tile * BC + n // BL
    token = n % BL
    there = (c < C) & (token < L)
    block = c.to(tl.int64)
    if INDEX:
        block = tl.load(index + h * C + c, mask=there, other=0).to(tl.int64)
    rows = h * q_h + m.to(tl.int64) * q_m
    columns = h * keys_h + block * keys_c + token.to(tl.int64) * keys_l
    k = tl.load(keys + columns[None, :] + w[:, None], mask=there[None, :] & (w < W)[:, None], other=0.0)
    rows_there = (m < M)[:, None] & (w < W)[None, :]
    queries = tl.load(q + rows[:, None] + w[None, :], mask=rows_there, other=0.0)
    rounded = queries.to(k.dtype)
    if WIDEN:  # the interpreter multiplies the bits of bf16 numbers as integers
        rounded, k = rounded.to(tl.float32), k.to(tl.float32)
    products = tl.dot(rounded, k, input_precision="ieee")
    if DEAD:
        gone = tl.load(dead + (h * C + c) * L + token, mask=there, other=1)
        there = there & (gone == 0)
    return tl.where(there[None, :], products, float("-inf"))
# fmt: on


# fmt: off
@triton.jit(do_not_specialize=["M", "C", "tiles", "per_split"])
def _row_sums(
    q, keys, index, dead, highest, total, M, C, tiles, per_split, q_h, q_m, keys_h, keys_c, keys_l,
    W: tl.constexpr, BW: tl.constexpr, L: tl.constexpr, BL: tl.constexpr, BC: tl.constexpr,
    BM: tl.constexpr, SPLITS: tl.constexpr, INDEX: tl.constexpr, DEAD: tl.constexpr, WIDEN: tl.constexpr,
):
    """Highest logit, and sum of exp(logit - highest), of rows over one part of the blocks: (h, m, split)."""
    split = tl.program_id(0)
    first_row = tl.program_id(1) * BM
    h = tl.program_id(2).to(tl.int64)
    top = tl.full((BM,), float("-inf"), tl.float32)
    added = tl.zeros((BM,), tl.float32)
    for tile in range(split * per_split, tl.minimum((split + 1) * per_split, tiles)):
        logits = _logits(
            q, keys, index, dead, h, first_row, tile, M, C, q_h, q_m, keys_h, keys_c, keys_l,
            W, BW, L, BL, BC, BM, INDEX, DEAD, WIDEN,
        )  # fmt: skip
        higher = tl.maximum(top, tl.max(logits, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)
        added = added * tl.exp(top - base) + tl.sum(tl.exp(logits - base[:, None]), 1)
        top = higher
    m = first_row + tl.arange(0, BM)
    at = (h * M + m) * SPLITS + split
    tl.store(highest + at, top, mask=m < M)
    tl.store(total + at, added, mask=m < M)
# fmt: on


# fmt: off
@triton.jit(do_not_specialize=["M", "C", "splits", "edge"])
def _block_sums(
    q, keys, index, dead, highest, total, out, M, C, splits, edge, q_h, q_m, keys_h, keys_c, keys_l,
    out_part, W: tl.constexpr, BW: tl.constexpr, L: tl.constexpr, BL: tl.constexpr, BC: tl.constexpr,
    BM: tl.constexpr, SPLITS: tl.constexpr, INDEX: tl.constexpr, DEAD: tl.constexpr, WIDEN: tl.constexpr,
    EDGES: tl.constexpr,
):
    """What the blocks of one tile get from all rows: whole, and if EDGES in their first and last quarters."""
    tile = tl.program_id(0)
    h = tl.program_id(1).to(tl.int64)
    s = tl.arange(0, SPLITS)
    mass = tl.zeros((BC * BL,), tl.float32)
    for first_row in range(0, M, BM):
        logits = _logits(
            q, keys, index, dead, h, first_row, tile, M, C, q_h, q_m, keys_h, keys_c, keys_l,
            W, BW, L, BL, BC, BM, INDEX, DEAD, WIDEN,
        )  # fmt: skip
        m = first_row + tl.arange(0, BM)
        at = (h * M + m)[:, None] * SPLITS + s[None, :]
        there = (m < M)[:, None] & (s < splits)[None, :]
        tops = tl.load(highest + at, mask=there, other=float("-inf"))
        top = tl.max(tops, 1)
        base = tl.where(top == float("-inf"), 0.0, top)
        added = tl.sum(tl.load(total + at, mask=there, other=0.0) * tl.exp(tops - base[:, None]), 1)
        shares = tl.exp(logits - base[:, None]) / tl.where(added > 0, added, 1.0)[:, None]
        mass += tl.sum(tl.where((m < M)[:, None], shares, 0.0), 0)
    by_block = tl.reshape(mass, (BC, BL))
    c = tile * BC + tl.arange(0, BC)
    place = out + h * C + c
    tl.store(place, tl.sum(by_block, 1), mask=c < C)
    if EDGES:
        token = tl.arange(0, BL)[None, :]
        first = tl.sum(tl.where(token < edge, by_block, 0.0), 1)
        last = tl.sum(tl.where(token >= L - edge, by_block, 0.0), 1)
        tl.store(place + out_part, first, mask=c < C)
        tl.store(place + 2 * out_part, last, mask=c < C)
# fmt: on


def block_masses(
    queries: Tensor, keys: Tensor, index: Tensor | None, dead: Tensor | None, edge: int | None
) -> Tensor:
    """See :func:`agentmem_kernels.masses.block_masses`; shapes are checked there."""
    Hkv, M, W = queries.shape
    C = keys.shape[1] if index is None else index.shape[1]
    L = keys.shape[2]
    BL = triton.next_power_of_2(L)
    share = 2 if keys.dtype == torch.float32 else 1  # without tensor cores products are unrolled one by one
    BC = max(1, COLUMNS // share // BL)
    BM = max(16, min(ROWS // share, triton.next_power_of_2(M)))
    tiles = triton.cdiv(C, BC)
    per_split = triton.cdiv(tiles, SPLITS)
    splits = triton.cdiv(tiles, per_split)
    highest, total = queries.new_empty((2, Hkv, M, SPLITS), dtype=torch.float32)
    out = queries.new_empty((1 if edge is None else 3, Hkv, C), dtype=torch.float32)
    gone = queries if dead is None else dead.view(torch.uint8)
    tensors = (queries, keys, keys if index is None else index, gone, highest, total)
    strides = (queries.stride(0), queries.stride(1), keys.stride(0), keys.stride(1), keys.stride(2))
    blocks = {
        "W": W,
        "BW": max(16, triton.next_power_of_2(W)),
        "L": L,
        "BL": BL,
        "BC": BC,
        "BM": BM,
        "SPLITS": SPLITS,
        "INDEX": index is not None,
        "DEAD": dead is not None,
        "WIDEN": keys.dtype == torch.bfloat16 and interpreting(),
        "num_warps": 4,
        "num_stages": 2,
    }
    with around(queries):
        _row_sums[(splits, triton.cdiv(M, BM), Hkv)](*tensors, M, C, tiles, per_split, *strides, **blocks)
        _block_sums[(tiles, Hkv)](
            *tensors,
            out,
            M,
            C,
            splits,
            edge or 0,
            *strides,
            out.stride(0),
            EDGES=edge is not None,
            **blocks,
        )
    return out

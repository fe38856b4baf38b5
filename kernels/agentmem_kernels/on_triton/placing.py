"""Rotating and moving tokens' keys, values and queries in one launch. See :mod:`agentmem_kernels.placing`.

One program moves a few tokens of one head. Products are rounded as torch rounds them one by one, and never
fused into multiply-adds, so results are torch's own to the last bit.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from agentmem_kernels.on_triton.trial import around
from agentmem_kernels.rotation import Rotation

TOKENS = 16
"""Tokens of one program, at most."""


@triton.jit
def _row(x, row, d, seen, C, S, partner, position, D: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr):
    """Rows x[row] (t, d) rotated to ``position`` (t,): x * C + x[partner] * S."""
    own = tl.load(x + row[:, None] + d[None, :], mask=seen, other=0.0)
    if WIDTH > 0:
        turns = seen & (d < WIDTH)[None, :]
        at = tl.load(partner + d, mask=d < WIDTH, other=0)
        other = tl.load(x + row[:, None] + at[None, :], mask=turns, other=0.0)
        c = tl.load(C + position[:, None] * D + d[None, :], mask=seen, other=0.0)
        s = tl.load(S + position[:, None] * WIDTH + d[None, :], mask=turns, other=0.0)
        straight = own.to(tl.float32) * c.to(tl.float32)
        turned = other.to(tl.float32) * s.to(tl.float32)
        if not WIDE:
            straight = straight.to(own.dtype).to(tl.float32)
            turned = turned.to(own.dtype).to(tl.float32)
        own = tl.where(turns, straight + turned, straight).to(own.dtype)
    return own


# fmt: off
@triton.jit(do_not_specialize=["start", "count"])
def _place(
    keys, values, tokens, C, S, partner, keys_out, values_out, start, count, keys_h, keys_t, values_h,
    values_t, keys_out_h, keys_out_t, values_out_h, values_out_t, D: tl.constexpr, BD: tl.constexpr,
    BT: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr, GATHER: tl.constexpr, VALUES: tl.constexpr,
):
    """Keys rotated to start, start + 1, ..., and values, of chosen or consecutive tokens of one head."""
    h = tl.program_id(1).to(tl.int64)
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    d = tl.arange(0, BD)
    there = t < count
    seen = there[:, None] & (d < D)[None, :]
    source = t.to(tl.int64)
    if GATHER:
        source = tl.load(tokens + h * count + t, mask=there, other=0).to(tl.int64)
    position = (start + t).to(tl.int64)
    rows = h * keys_h + source * keys_t
    moved = _row(keys, rows, d, seen, C, S, partner, position, D, WIDTH, WIDE)
    out = h * keys_out_h + t.to(tl.int64) * keys_out_t
    tl.store(keys_out + out[:, None] + d[None, :], moved, mask=seen)
    if VALUES:
        rows = h * values_h + source * values_t
        copied = tl.load(values + rows[:, None] + d[None, :], mask=seen, other=0.0)
        out = h * values_out_h + t.to(tl.int64) * values_out_t
        tl.store(values_out + out[:, None] + d[None, :], copied, mask=seen)
# fmt: on


# fmt: off
@triton.jit(do_not_specialize=["start", "at", "count"])
def _enter(
    q, k, v, C, S, partner, q_out, keys_out, values_out, q_kept, k_kept, v_kept, start, at, count, q_h,
    q_t, k_h, k_t, v_h, v_t, out_h, kept_h, HQ: tl.constexpr, HKV: tl.constexpr, D: tl.constexpr,
    BD: tl.constexpr, BT: tl.constexpr, WIDTH: tl.constexpr, WIDE: tl.constexpr, KEEP: tl.constexpr,
):
    """One head of new tokens: a query head first, then a key head, then a value head."""
    h = tl.program_id(1)
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    d = tl.arange(0, BD)
    seen = (t < count)[:, None] & (d < D)[None, :]
    position = (start + t).to(tl.int64)
    kept_row = (at + t).to(tl.int64) * D
    if h < HQ:
        own = h.to(tl.int64)
        row = own * q_h + t.to(tl.int64) * q_t
        out = (own * count + t) * D
        moved = _row(q, row, d, seen, C, S, partner, position, D, WIDTH, WIDE)
        tl.store(q_out + out[:, None] + d[None, :], moved, mask=seen)
        if KEEP:
            raw = tl.load(q + row[:, None] + d[None, :], mask=seen, other=0.0)
            tl.store(q_kept + (own * kept_h + kept_row)[:, None] + d[None, :], raw, mask=seen)
    elif h < HQ + HKV:
        own = (h - HQ).to(tl.int64)
        row = own * k_h + t.to(tl.int64) * k_t
        out = own * out_h + position * D
        moved = _row(k, row, d, seen, C, S, partner, position, D, WIDTH, WIDE)
        tl.store(keys_out + out[:, None] + d[None, :], moved, mask=seen)
        if KEEP:
            raw = tl.load(k + row[:, None] + d[None, :], mask=seen, other=0.0)
            tl.store(k_kept + (own * kept_h + kept_row)[:, None] + d[None, :], raw, mask=seen)
    else:
        own = (h - HQ - HKV).to(tl.int64)
        row = own * v_h + t.to(tl.int64) * v_t
        raw = tl.load(v + row[:, None] + d[None, :], mask=seen, other=0.0)
        out = own * out_h + position * D
        tl.store(values_out + out[:, None] + d[None, :], raw, mask=seen)
        if KEEP:
            tl.store(v_kept + (own * kept_h + kept_row)[:, None] + d[None, :], raw, mask=seen)
# fmt: on


def rotate_into(
    keys: Tensor,
    values: Tensor | None,
    rotation: Rotation | None,
    start: int,
    keys_out: Tensor,
    values_out: Tensor | None,
    tokens: Tensor | None,
) -> None:
    """See :func:`agentmem_kernels.placing.rotate_into`; shapes are checked there."""
    Hkv, count, D = keys_out.shape
    there = values if values is not None else keys
    out = values_out if values_out is not None else keys_out
    turns = _table(rotation, keys)
    with around(keys_out):
        _place[(triton.cdiv(count, TOKENS), Hkv)](
            keys,
            there,
            tokens if tokens is not None else keys,
            *turns,
            keys_out,
            out,
            start,
            count,
            keys.stride(0),
            keys.stride(1),
            there.stride(0),
            there.stride(1),
            keys_out.stride(0),
            keys_out.stride(1),
            out.stride(0),
            out.stride(1),
            D=D,
            BD=triton.next_power_of_2(D),
            BT=TOKENS,
            WIDTH=0 if rotation is None else rotation.width,
            WIDE=rotation is not None and rotation.in_fp32,
            GATHER=tokens is not None,
            VALUES=values is not None,
            num_warps=1,
            enable_fp_fusion=False,
        )


def enter(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rotation: Rotation | None,
    start: int,
    keys_out: Tensor,
    values_out: Tensor,
    kept: tuple[Tensor, Tensor, Tensor] | None,
    at: int,
) -> Tensor:
    """See :func:`agentmem_kernels.placing.enter`; shapes are checked there."""
    Hq, count, D = q.shape
    Hkv = len(k)
    q_out = q.new_empty(q.shape)
    BT = min(TOKENS, triton.next_power_of_2(count))
    with around(q):
        _enter[(triton.cdiv(count, BT), Hq + 2 * Hkv)](
            q,
            k,
            v,
            *_table(rotation, q),
            q_out,
            keys_out,
            values_out,
            *(kept if kept is not None else (q, k, v)),
            start,
            at,
            count,
            q.stride(0),
            q.stride(1),
            k.stride(0),
            k.stride(1),
            v.stride(0),
            v.stride(1),
            keys_out.stride(0),
            0 if kept is None else kept[1].stride(0),
            HQ=Hq,
            HKV=Hkv,
            D=D,
            BD=triton.next_power_of_2(D),
            BT=BT,
            WIDTH=0 if rotation is None else rotation.width,
            WIDE=rotation is not None and rotation.in_fp32,
            KEEP=kept is not None,
            num_warps=1,
            enable_fp_fusion=False,
        )
    return q_out


def _table(rotation: Rotation | None, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The rotation's tensors; without one, something to point at."""
    return (like, like, like) if rotation is None else (rotation.C, rotation.S, rotation.partner)

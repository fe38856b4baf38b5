"""Tensors handed to the compiled kernels. Checks what they cannot take; knows no rule for when they are used."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from agentmem_kernels.on_cpu.library import loaded, parallel
from agentmem_kernels.rotation import Rotation
from agentmem_kernels.scratch import Fresh, Scratch

MAX_DIM = 256
"""A vector has at most so many numbers, and an even number of them."""
BLOCK = 64
"""Keys that are packed together."""
TILE = 24
"""Query rows whose logits the masses of blocks keep at once."""


class _Attend(ctypes.Structure):
    """``struct Attend`` of attend.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("q", "keys", "values", "mask", "out", "sight")),
        *((name, ctypes.c_long) for name in ("B", "Hq", "Hkv", "T", "S", "D")),
        *((f"{one}_{of}", ctypes.c_long) for one in "qkvm" for of in ("batch", "head", "row")),
        ("scaling", ctypes.c_float),
        ("threads", ctypes.c_int),
        ("parallel", ctypes.c_void_p),
    )


class _Rotation(ctypes.Structure):
    """``struct Rotation`` of enter.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("C", "S", "partner")),
        *((name, ctypes.c_long) for name in ("D", "width")),
        ("in_fp32", ctypes.c_int),
        ("runs", ctypes.c_uint8 * (MAX_DIM // 16)),
    )


class _Turn(ctypes.Structure):
    """``struct Turn`` of enter.c."""

    _fields_ = (
        ("rotation", _Rotation),
        *((name, ctypes.c_void_p) for name in ("x", "out")),
        *((name, ctypes.c_long) for name in ("heads", "T", "x_head", "x_row", "out_head", "out_row")),
        ("threads", ctypes.c_int),
        ("parallel", ctypes.c_void_p),
    )


class _Enter(ctypes.Structure):
    """``struct Enter`` of enter.c."""

    _fields_ = (
        ("rotation", _Rotation),
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "q_out", "keys_out", "values_out")),
        *((name, ctypes.c_void_p) for name in ("q_kept", "k_kept", "v_kept")),
        *((name, ctypes.c_long) for name in ("Hq", "Hkv", "T")),
        *((f"{one}_{of}", ctypes.c_long) for one in "qkv" for of in ("head", "row")),
        *((name, ctypes.c_long) for name in ("out_head", "q_kept_head", "kept_head")),
    )


class _Masses(ctypes.Structure):
    """``struct Masses`` of masses.c."""

    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in ("queries", "parts", "counts", "heads", "dead", "seen", "logits", "sums", "out")
        ),
        *(
            (name, ctypes.c_long)
            for name in ("H", "M", "W", "n", "stride", "parts_count", "per_block", "edge")
        ),
        ("scaling", ctypes.c_float),
        ("threads", ctypes.c_int),
        ("parallel", ctypes.c_void_p),
    )


class _Int8(ctypes.Structure):
    """``struct Int8`` of int8.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "steps", "scales", "out")),
        *((name, ctypes.c_long) for name in ("M", "N", "K")),
        ("threads", ctypes.c_int),
        ("parallel", ctypes.c_void_p),
    )


def takes(*tensors: Tensor) -> bool:
    """Whether the kernels can read these: bfloat16 on the CPU, rows contiguous, nothing to differentiate."""
    return all(
        type(one) is Tensor
        and one.dtype == torch.bfloat16
        and one.device.type == "cpu"
        and (one.stride(-1) == 1 or one.shape[-1] == 1)
        and not (one.requires_grad and torch.is_grad_enabled())
        for one in tensors
    )


def fits(dim: int) -> bool:
    """Whether vectors of so many numbers can be queries, keys and values."""
    return 0 < dim <= MAX_DIM and dim % 2 == 0


def attend(q: Tensor, keys: Tensor, values: Tensor, *, scaling: float, mask: Tensor | None) -> Tensor:
    """Attention of q (B, Hq, T, D) to keys and values (B, Hkv, S, D), as they are taken: (B, Hq, T, D) bfloat16.

    ``mask`` is additive, (..., T, S), bfloat16. A row whose keys are all masked is NaN. Any scaling above 0. A row's bits
    depend neither on other rows nor on the number of threads.
    """
    B, Hq, T, D = q.shape
    S = keys.shape[2]
    out = torch.empty((B, Hq, T, D), dtype=q.dtype)
    steps: tuple[int, ...] = (0, 0, 0)
    sight = None
    if mask is not None:
        mask = (mask if mask.stride(-1) == 1 or S == 1 else mask.contiguous()).expand(B, Hq, T, S)
        shared = mask.stride(0) == 0 or B == 1, mask.stride(1) == 0 or Hq == 1
        steps = tuple(0 if n == 1 else step for n, step in zip((B, Hq, T), mask.stride()[:3], strict=True))
        sight = torch.empty((T, -(-S // BLOCK)), dtype=torch.uint8) if all(shared) else None
    of = _Attend(
        *(_at(one) for one in (q, keys, values, mask, out, sight)),
        *(B, Hq, keys.shape[1], T, S, D),
        *(*q.stride()[:3], *keys.stride()[:3], *values.stride()[:3], *steps),
        *(scaling, torch.get_num_threads(), parallel()),
    )
    loaded().agentmem_attend(ctypes.byref(of))
    return out


def block_masses(
    queries: Tensor,
    parts: Sequence[Tensor],
    *,
    dead: Tensor | None = None,
    edge: int | None = None,
    seen: Tensor | None = None,
    scaling: float = 1.0,
    scratch: Scratch | None = None,
) -> Tensor:
    """See :func:`agentmem_kernels.block_masses`; ``parts`` (Hkv, n_i, L, W) are the blocks, each head's rows contiguous."""
    Hkv, M, W = queries.shape
    L = parts[0].shape[2]
    blocks = sum(part.shape[1] for part in parts)
    lent, tiles = scratch or Fresh(), -(-M // TILE)
    threads = min(torch.get_num_threads(), Hkv * tiles)
    stride = -(-blocks * L // BLOCK) * BLOCK + BLOCK
    narrow = lent.room("narrow", queries.shape, torch.bfloat16).copy_(queries)
    logits = lent.room("tile-logits", (threads, TILE, stride), torch.float32)
    sums = lent.room("tile-sums", (Hkv, tiles, stride), torch.float32)
    out = torch.empty((1 if edge is None else 3, Hkv, blocks))
    laid = [part if _in_rows(part) else part.contiguous() for part in parts]
    longs = ctypes.c_long * len(laid)
    addresses = (ctypes.c_void_p * len(laid))(*(_at(part) for part in laid))
    counts = longs(*(part.shape[1] * L for part in laid))
    heads = longs(*(part.stride(0) for part in laid))
    of = _Masses(
        *(_at(narrow), *(ctypes.addressof(one) for one in (addresses, counts, heads))),
        *(_at(one) for one in (dead, seen, logits, sums, out)),
        *(Hkv, M, W, blocks * L, stride, len(laid), L, edge or 0),
        *(scaling, threads, parallel()),
    )
    loaded().agentmem_masses(ctypes.byref(of))
    return out


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
    """See :func:`agentmem_kernels.enter`; everything is as it is checked there. On one thread."""
    (Hq, T, D), Hkv = q.shape, len(k)
    out = torch.empty((Hq, T, D), dtype=q.dtype)
    rooms = (None, None, None) if kept is None else tuple(room[:, at:] for room in kept)
    of = _Enter(
        _at_positions(rotation, start, D),
        *(_at(one) for one in (q, k, v, out, keys_out[:, start:], values_out[:, start:], *rooms)),
        *(Hq, Hkv, T),
        *(*q.stride()[:2], *k.stride()[:2], *v.stride()[:2], keys_out.stride(0)),
        *((0, 0) if kept is None else (kept[0].stride(0), kept[1].stride(0))),
    )
    loaded().agentmem_enter(ctypes.byref(of))
    return out


def rotate(x: Tensor, rotation: Rotation, start: int, out: Tensor) -> None:
    """Write x (H, T, D), rotated to positions start, start + 1, ..., into ``out``: x itself, or apart from it."""
    heads, T, D = x.shape
    of = _Turn(
        _at_positions(rotation, start, D),
        *(_at(x), _at(out), heads, T, *x.stride()[:2], *out.stride()[:2]),
        *(torch.get_num_threads(), parallel()),
    )
    loaded().agentmem_rotate(ctypes.byref(of))


def _at_positions(rotation: Rotation | None, start: int, dim: int) -> _Rotation:
    if rotation is None:
        return _Rotation(D=dim)
    C, S, partner, in_fp32 = rotation
    return _Rotation(_at(C[start:]), _at(S[start:]), _at(partner), dim, S.shape[1], in_fp32)


def multiply_int8(x: Tensor, steps: Tensor, scales: Tensor) -> Tensor:
    """Rows x (M, K) times steps (N, K) int8, contiguous, times scales (N,): (M, N) bfloat16.

    A row's bits depend neither on other rows nor on the number of threads.
    """
    x = x.contiguous()
    (M, K), N = x.shape, len(steps)
    out = torch.empty((M, N), dtype=x.dtype)
    at = (_at(one) for one in (x, steps, scales, out))
    of = _Int8(*at, M, N, K, torch.get_num_threads(), parallel())
    loaded().agentmem_int8(ctypes.byref(of))
    return out


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _in_rows(part: Tensor) -> bool:
    """Whether each head's vectors lie one after another."""
    _, n, L, W = part.shape
    return part.stride(3) == 1 and (L == 1 or part.stride(2) == W) and (n == 1 or part.stride(1) == L * W)

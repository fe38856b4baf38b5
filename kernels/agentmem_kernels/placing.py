"""Bringing tokens into a working set: raw keys rotated to where they will stand, values beside them.

:func:`rotate_into` serves tokens of the past, consecutive or chosen; :func:`enter` serves new ones, whose
queries are rotated too and whose raw projections are kept for the log. Each is one launch by Triton; turning keys, and
entering for a few tokens, are one call in C; the same bits as torch's operations, which are the specification. Knows no log and no
working set.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from agentmem_kernels import on_cpu
from agentmem_kernels.backends import Backend, accelerated, first_that_runs, native
from agentmem_kernels.rotation import Rotation, turned

FEW = 16
"""Up to so many tokens enter by the call in C, which takes them one by one."""


class Kept(NamedTuple):
    """Where raw projections of new tokens are kept: (H, capacity, D) each, contiguous."""

    queries: Tensor
    keys: Tensor
    values: Tensor


def rotate_into(
    keys: Tensor,
    values: Tensor | None,
    rotation: Rotation | None,
    start: int,
    keys_out: Tensor,
    values_out: Tensor | None,
    *,
    tokens: Tensor | None = None,
    backend: Backend = "auto",
) -> None:
    """Write keys, rotated to positions start, start + 1, ..., and values where they belong.

    Args:
        keys, values: (Hkv, S, D) raw; values may be None, when only keys move.
        rotation: None for a layer without positions.
        start: the first position.
        keys_out, values_out: (Hkv, n, D), views of buffers with a contiguous last dim; do not overlap the inputs.
        tokens: (Hkv, n) int64, contiguous, which of the S tokens per head, each in [0, S), which is not
            checked on a GPU; None: all, in order.
        backend: see :mod:`.backends`.

    Raises:
        ValueError: shapes, dtypes or positions do not fit.
        BackendError: the backend asked for cannot run.
    """
    Hkv, count, D = keys_out.shape
    _check_place(keys, values, rotation, start, keys_out, values_out, tokens)
    if not count or not Hkv:
        return
    if rotation is not None and native(
        keys, keys_out, fits=_alone(keys, values, rotation, tokens), backend=backend
    ):
        on_cpu.rotate(keys, rotation, start, keys_out)
        return

    def by_triton() -> None:
        from agentmem_kernels.on_triton import placing  # noqa: PLC0415  # only where Triton runs

        placing.rotate_into(
            _rows(keys),
            None if values is None else _rows(values),
            rotation,
            start,
            keys_out,
            values_out,
            tokens,
        )

    def plain() -> None:
        index = None if tokens is None else tokens[..., None].expand(Hkv, count, D)
        keys_out.copy_(turned(rotation, keys if index is None else keys.gather(1, index), start))
        if values is not None and values_out is not None:
            values_out.copy_(values if index is None else values.gather(1, index))

    first_that_runs("rotate_into", keys_out, backend, by_triton, plain)


def enter(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rotation: Rotation | None,
    start: int,
    keys_out: Tensor,
    values_out: Tensor,
    *,
    kept: Kept | None = None,
    at: int = 0,
    backend: Backend = "auto",
) -> Tensor:
    """Let T new tokens enter a working set at index and position ``start``; returns their rotated queries.

    Args:
        q: (Hq, T, D) raw queries.
        k, v: (Hkv, T, D), raw.
        rotation: None for a layer without positions.
        start: where they stand in the working set, and their position.
        keys_out, values_out: (Hkv, capacity, D), contiguous: the whole buffers.
        kept: where raw queries, keys and values are written from index ``at`` on, if they are kept.
        backend: see :mod:`.backends`.

    Returns:
        (Hq, T, D) contiguous on Triton's path and in C, in q's dtype; q itself may come back where nothing is rotated.

    Raises:
        ValueError: shapes, dtypes or positions do not fit.
        BackendError: the backend asked for cannot run.
    """
    T = q.shape[1]
    _check_enter(q, k, v, rotation, start, keys_out, values_out, kept, at)
    rooms = (keys_out, values_out, *(kept or ()))
    if T and native(q, k, v, *rooms, fits=_few(q, rotation), backend=backend):
        return on_cpu.enter(q, k, v, rotation, start, keys_out, values_out, kept, at)

    def by_triton() -> Tensor:
        from agentmem_kernels.on_triton import placing  # noqa: PLC0415  # only where Triton runs

        return placing.enter(_rows(q), _rows(k), _rows(v), rotation, start, keys_out, values_out, kept, at)

    def plain() -> Tensor:
        if kept is not None:
            for room, new in zip(kept, (q, k, v), strict=True):
                room[:, at : at + T].copy_(new)
        keys_out[:, start : start + T].copy_(turned(rotation, k, start))
        values_out[:, start : start + T].copy_(v)
        return turned(rotation, q, start)

    return first_that_runs("enter", q, backend, by_triton, plain) if T else q


def turns_in_one_call(x: Tensor, rotation: Rotation) -> bool:
    """Whether :func:`rotate_into` is one call in C for keys alone, which is then the fastest way; it may be in place."""
    return native(x, fits=_alone(x, None, rotation, None))


def in_one_call(q: Tensor, k: Tensor, v: Tensor, rotation: Rotation | None) -> bool:
    """Whether :func:`enter` is one call for these, which is then the fastest way."""
    return accelerated(k) or native(q, k, v, fits=_few(q, rotation))


def _alone(keys: Tensor, values: Tensor | None, rotation: Rotation, tokens: Tensor | None) -> bool:
    return values is None and tokens is None and on_cpu.fits(keys.shape[2]) and _table_fits(keys, rotation)


def _table_fits(x: Tensor, rotation: Rotation | None) -> bool:
    if rotation is None:
        return True
    wanted = torch.float32 if rotation.in_fp32 else x.dtype
    return all(one.dtype == wanted and one.is_contiguous() for one in (rotation.C, rotation.S))


def _few(q: Tensor, rotation: Rotation | None) -> bool:
    return q.shape[1] <= FEW and on_cpu.fits(q.shape[2]) and _table_fits(q, rotation)


def _check_place(
    keys: Tensor,
    values: Tensor | None,
    rotation: Rotation | None,
    start: int,
    keys_out: Tensor,
    values_out: Tensor | None,
    tokens: Tensor | None,
) -> None:
    Hkv, count, D = keys_out.shape
    rows = keys.shape[1] if tokens is None else count
    if keys.ndim != 3 or (keys.shape[0], rows, keys.shape[2]) != (Hkv, count, D):
        raise ValueError(f"keys: {tuple(keys.shape)} do not fit keys_out {tuple(keys_out.shape)}")
    if keys.dtype != keys_out.dtype:
        raise ValueError(f"keys: {keys.dtype} do not fit keys_out {keys_out.dtype}")
    if (values is None) != (values_out is None):
        raise ValueError("values and values_out: give both or neither")
    pairs = ((values, keys), (values_out, keys_out))
    if any(own is not None and own.shape != other.shape for own, other in pairs):
        raise ValueError(f"values: expected {tuple(keys.shape)} into {tuple(keys_out.shape)}")
    if tokens is not None and (tokens.shape != (Hkv, count) or not tokens.is_contiguous()):
        raise ValueError(f"tokens: expected ({Hkv}, {count}), contiguous, got {tuple(tokens.shape)}")
    if any(out is not None and _rows(out) is not out for out in (keys_out, values_out)):
        raise ValueError(f"keys_out, values_out: the last dim must be contiguous, got {keys_out.stride()}")
    if rotation is not None:
        rotation.check(keys, start, count)


def _check_enter(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rotation: Rotation | None,
    start: int,
    keys_out: Tensor,
    values_out: Tensor,
    kept: Kept | None,
    at: int,
) -> None:
    Hkv, capacity, D = keys_out.shape
    T = q.shape[1]
    if k.shape != (Hkv, T, D) or v.shape != k.shape or q.shape[2] != D:
        raise ValueError(f"q, k, v: {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)} do not fit together")
    if values_out.shape != keys_out.shape or not keys_out.is_contiguous() or not values_out.is_contiguous():
        raise ValueError(f"values_out: expected {tuple(keys_out.shape)}, both buffers contiguous")
    if start < 0 or start + T > capacity:
        raise ValueError(f"start: {start} + {T} tokens leave the buffer of {capacity}")
    if kept is not None:
        rooms = [tuple(room.shape) for room in kept]
        if rooms != [(len(q), kept.keys.shape[1], D), rooms[1], rooms[1]] or rooms[1][0] != Hkv:
            raise ValueError(f"kept: {rooms} do not fit {len(q)} and {Hkv} heads of {D}")
        if at < 0 or at + T > rooms[1][1] or not all(room.is_contiguous() for room in kept):
            raise ValueError(
                f"kept: {at} + {T} tokens leave rooms of {rooms[1][1]}, or these are not contiguous"
            )
    if rotation is not None:
        rotation.check(q, start, T)


def _rows(x: Tensor) -> Tensor:
    """The tensor with a contiguous last dim: itself, nearly always."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()

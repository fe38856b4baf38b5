"""Rotating raw queries and keys to chosen positions, and what attention needs to know of a layer.

One form holds every rotary embedding: ``y = x * C[p] + x[..., perm] * S[p]``, with C and S (P, D) per
position p. Half-split, interleaved, partial and scaled rotations differ only in C, S and perm, so
nothing here knows a model or transformers; the engine derives the three from the model's own function.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agentmem.errors import ShapeError
from agentmem_kernels import Rotation, rotate_into, turns_in_one_call


class _Scratch(threading.local):
    """One reused flat buffer per thread: two conversations may rotate with one table at once."""

    def __init__(self) -> None:
        self.buffer: Tensor | None = None

    def view(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Uninitialised memory of that shape, of ``like``'s dtype and device."""
        size = 1
        for n in shape:
            size *= n
        buffer = self.buffer
        if buffer is None or buffer.numel() < size or buffer.dtype != like.dtype:
            # Born outside inference mode: a tensor born inside could not be written outside later.
            with torch.inference_mode(False):
                buffer = torch.empty(size, dtype=like.dtype, device=like.device)
            self.buffer = buffer
        return buffer[:size].view(shape)


class RotaryTable:
    """The rotation of every position in [0, P) for one kind of layer; never changes.

    Args:
        C, S: (P, D), what x and x[..., perm] are multiplied by. Their dtype is the dtype of what is
            rotated, or fp32 when ``in_fp32``. S is zero on dims that are not rotated.
        perm: (D,) int64, a permutation that maps each rotated dim to its partner.
        in_fp32: multiply in fp32 and round once, for models that do so (OLMo 2, Cohere, ERNIE).

    Raises:
        ShapeError: the three do not fit together.
    """

    def __init__(self, C: Tensor, S: Tensor, perm: Tensor, *, in_fp32: bool) -> None:
        P, D = C.shape
        if S.shape != (P, D) or perm.shape != (D,):
            raise ShapeError(
                f"rotary table: expected C and S (P, D) and perm (D,), got {tuple(C.shape)}, "
                f"{tuple(S.shape)} and {tuple(perm.shape)}"
            )
        if S.dtype != C.dtype or (in_fp32 and C.dtype != torch.float32):
            raise ShapeError(f"rotary table: C is {C.dtype}, S is {S.dtype}, in_fp32 is {in_fp32}")
        self.max_positions = int(P)
        self.in_fp32 = in_fp32
        self._C = C.contiguous()
        self._pairs = _pairs(perm.tolist())
        # With whole pairs known only the rotated leading dims need a partner.
        width = D if self._pairs is None else self._pairs[2]
        self._S = S[:, :width].contiguous()
        self._perm = perm.contiguous()
        self.rotation = Rotation(self._C, self._S, self._perm, in_fp32)
        self._counting = torch.arange(P)
        self._scratch = _Scratch()

    def __deepcopy__(self, memo: dict[int, Any]) -> RotaryTable:
        return self  # never changes; only the scratch memory is its own per thread

    @property
    def head_dim(self) -> int:
        """D, the size of a head."""
        return int(self._C.shape[1])

    @property
    def dtype(self) -> torch.dtype:
        """The dtype the products are computed in."""
        return self._C.dtype

    @property
    def device(self) -> torch.device:
        """Where the table lies, and what it rotates must lie."""
        return self._C.device

    def key_scale(self) -> Tensor:
        """(D,) fp32: what a key at position 0 is multiplied by.

        The model's attention scaling (YaRN, longrope) on rotated dims, else 1. Raw q.k lacks its square.
        """
        return self._C[0].float()

    @torch.no_grad()
    def rotate(self, x: Tensor, positions: Tensor | range, out: Tensor | None = None) -> Tensor:
        """Rotate x (..., T, D) to ``positions`` (T,) int64, or a range, which needs no look at a tensor.

        ``out`` may be x itself (rotation in place) or must not overlap it; it takes x's shape and
        dtype. Consecutive positions are sliced, others gathered. Equal bit for bit to the model's own.

        Raises:
            ShapeError: shapes or dtypes do not fit, or a position lies outside the table.
        """
        self._check(x, positions, out)
        start = self._start_of_one_call(x, positions)
        if start is not None:
            done = torch.empty_like(x) if out is None else out
            rotate_into(x, None, self.rotation, start, done, None)
            return done
        C, S = self._rows(positions)
        source = x.float() if self.in_fp32 else x
        turned = self._turned(source, S)
        if not self.in_fp32:
            result = torch.mul(x, C, out=out) if out is not None else x * C
            result[..., : turned.shape[-1]].add_(turned)
            return result
        wide = torch.mul(source, C)
        wide[..., : turned.shape[-1]].add_(turned)
        return wide.to(x.dtype) if out is None else out.copy_(wide)

    def _turned(self, x: Tensor, S: Tensor) -> Tensor:
        """x[..., perm] * S on the rotated dims, in scratch memory."""
        if self._pairs is None:
            turned = self._scratch.view(tuple(x.shape), x)
            return torch.index_select(x, -1, self._perm, out=turned).mul_(S)
        first, second, width = self._pairs
        turned = self._scratch.view((*x.shape[:-1], width), x)
        torch.mul(x[..., second], S[..., first], out=turned[..., first])
        torch.mul(x[..., first], S[..., second], out=turned[..., second])
        return turned

    def _rows(self, positions: Tensor | range) -> tuple[Tensor, Tensor]:
        """C and S of the positions, (T, D) and (T, width): a view when they are consecutive."""
        T = len(positions)
        if T == 0:
            return self._C[:0], self._S[:0]
        if isinstance(positions, range):
            start, consecutive = positions.start, positions.step == 1 or T == 1
            low, high = min(positions[0], positions[-1]), max(positions[0], positions[-1])
        elif positions.device.type != "cpu":  # looking at it would stall the device
            return self._C.index_select(0, positions), self._S.index_select(0, positions)
        else:
            start = int(positions[0])
            consecutive = T == 1 or torch.equal(positions, self._counting[start : start + T])
            low, high = (start, start + T - 1) if consecutive else _bounds(positions)
        if low < 0 or high >= self.max_positions:
            raise ShapeError(
                f"positions {low}..{high} leave the rotary table of {self.max_positions}; "
                "bind the model with a larger max_positions"
            )
        if consecutive:
            return self._C[start : start + T], self._S[start : start + T]
        index = torch.as_tensor(positions).to(self.device)
        return self._C.index_select(0, index), self._S.index_select(0, index)

    def _start_of_one_call(self, x: Tensor, positions: Tensor | range) -> int | None:
        """The first of positions that one compiled call rotates x (H, T, D) to; None when it takes something else."""
        if not isinstance(positions, range) or positions.step != 1 or x.ndim != 3 or not positions:
            return None
        inside = positions.start >= 0 and positions.stop <= self.max_positions
        return positions.start if inside and turns_in_one_call(x, self.rotation) else None

    def _check(self, x: Tensor, positions: Tensor | range, out: Tensor | None) -> None:
        if x.ndim < 2 or x.shape[-1] != self.head_dim:
            raise ShapeError(f"rotate: expected (..., T, D={self.head_dim}), got {tuple(x.shape)}")
        if not isinstance(positions, range) and positions.ndim != 1:
            raise ShapeError(f"positions: expected (T,), got {tuple(positions.shape)}")
        if x.shape[-2] != len(positions):
            raise ShapeError(f"rotate: {x.shape[-2]} tokens but {len(positions)} positions")
        if not self.in_fp32 and x.dtype != self.dtype:
            raise ShapeError(f"rotate: the table is {self.dtype}, x is {x.dtype}")
        if out is not None and (out.shape != x.shape or out.dtype != x.dtype):
            raise ShapeError(f"out: expected {tuple(x.shape)} {x.dtype}, got {tuple(out.shape)} {out.dtype}")


@dataclass(frozen=True)
class LayerSpec:
    """What attention needs to know of one layer of the model, found by probing it."""

    index: int
    """Place in the token log: the order in which a forward pass reaches the layers."""
    num_q_heads: int
    num_kv_heads: int
    head_dim: int
    window: int | None
    """A query sees the newest ``window`` tokens, itself counted. None: all, so the layer can recall."""
    rotary: RotaryTable | None
    """None: the layer uses no positions (NoPE)."""


def _pairs(perm: list[int]) -> tuple[slice, slice, int] | None:
    """The two slices that perm swaps and the width they cover from dim 0; None if it is neither layout."""
    width = max((i + 1 for i, j in enumerate(perm) if i != j), default=0)
    half = width // 2
    if width % 2 == 0 and perm[:width] == [*range(half, width), *range(half)]:
        return slice(0, half), slice(half, width), width
    if width % 2 == 0 and perm[:width] == [i ^ 1 for i in range(width)]:
        return slice(0, width, 2), slice(1, width, 2), width
    return None


def _bounds(positions: Tensor) -> tuple[int, int]:
    low, high = torch.aminmax(positions)
    return int(low), int(high)

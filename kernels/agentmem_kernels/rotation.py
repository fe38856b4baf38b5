"""The table of a rotation: what a key or query is multiplied by at each position. Knows no model.

``y = x * C[p] + x[..., partner] * S[p]``, the second part on the first ``width`` dims alone. Half-split,
interleaved, partial and scaled rotary embeddings differ only in the three tensors.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Rotation(NamedTuple):
    """The rotation of positions 0 .. P - 1, all on one device, contiguous."""

    C: Tensor
    """(P, D), in the dtype of what is rotated, or fp32 when ``in_fp32``."""
    S: Tensor
    """(P, width), likewise."""
    partner: Tensor
    """(D,) int64; the first ``width`` count."""
    in_fp32: bool
    """Multiply in fp32 and round once; otherwise each product and the sum are rounded to the dtype."""

    @property
    def width(self) -> int:
        """How many leading dims are rotated."""
        return int(self.S.shape[1])

    def check(self, x: Tensor, start: int, count: int) -> None:
        """Raise ValueError unless x (..., D) can be rotated to positions start .. start + count - 1."""
        P, D = self.C.shape
        if x.shape[-1] != D:
            raise ValueError(f"rotation: the table has heads of {D}, got {tuple(x.shape)}")
        if not self.in_fp32 and x.dtype != self.C.dtype:
            raise ValueError(f"rotation: the table is {self.C.dtype}, got {x.dtype}")
        if start < 0 or start + count > P:
            raise ValueError(f"rotation: positions {start}..{start + count - 1} leave the table of {P}")

    def turned(self, x: Tensor, start: int) -> Tensor:
        """The specification: x (..., T, D) rotated to positions start, start + 1, ..., in x's dtype."""
        T, width = x.shape[-2], self.width
        C, S = self.C[start : start + T], self.S[start : start + T]
        source = x.float() if self.in_fp32 else x
        out = source * C
        out[..., :width] += source[..., self.partner[:width]] * S
        return out.to(x.dtype)


def turned(rotation: Rotation | None, x: Tensor, start: int) -> Tensor:
    """Rotate x, or leave it as it is where a layer uses no positions."""
    return x if rotation is None else rotation.turned(x, start)

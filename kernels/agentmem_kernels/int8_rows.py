"""Rows of one byte an element: D codes and, behind them, their common scale as two bytes of bfloat16.

The largest of a row's elements becomes the code 127 or -127, so a row stands for itself: what one token is stored as
never depends on its neighbours. Where channels differ, they are made alike first, by an offset and a factor each.
Written into given memory; :func:`agentmem_kernels.reference.rounded` and :func:`agentmem_kernels.reference.widened`
say the same without it, bit for bit. On the CPU, where logs are read.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SCALE_BYTES = 2
"""By how much a row is longer than its codes."""
LARGEST = 127
LEAST_SCALE = 2.0**-126
"""The least scale of a row that was written: a scale of zero is a row of zero bytes, which never was, or was erased."""


class Channels(NamedTuple):
    """What a head's channels are made alike by: ``x = offset + factor * code * scale``; (H, 1, D) fp32."""

    offset: Tensor
    factor: Tensor


def round_rows(x: Tensor, rows: Tensor, scratch: Tensor, channels: Channels | None = None) -> None:
    """Round x (H, S, D) to ``rows`` (H, S, D + 2) int8.

    Args:
        x: of any float dtype.
        rows: what is written.
        scratch: (H, S, D) fp32, overwritten.
        channels: of keys; None: x as it is.
    """
    D = x.shape[-1]
    scratch.copy_(x)
    if channels is not None:
        scratch.sub_(channels.offset).div_(channels.factor)
    scale = scratch.abs().amax(-1, keepdim=True).div_(LARGEST).clamp_(min=LEAST_SCALE).to(torch.bfloat16)
    scratch.div_(scale).round_().clamp_(-LARGEST, LARGEST)
    rows[..., :D].copy_(scratch)
    rows[..., D:].copy_(scale.view(torch.int8))


def widen_rows(rows: Tensor, out: Tensor, scratch: Tensor, channels: Channels | None = None) -> None:
    """What ``rows`` (H, S, D + 2) int8 stand for, rounded once to ``out`` (H, S, D); rows of zero bytes are zeros.

    ``scratch`` (H, S, D) fp32 is overwritten where there are ``channels``.
    """
    D = out.shape[-1]
    scale = _scales(rows)
    if channels is None:
        if out.dtype == torch.bfloat16:
            torch.mul(rows[..., :D], scale, out=out)
        else:  # the product of an int8 and a bfloat16 is rounded to bfloat16 on its way to any other
            out.copy_(rows[..., :D]).mul_(scale)
        return
    scratch.copy_(rows[..., :D])
    scratch.mul_(scale)
    torch.addcmul(channels.offset, scratch, channels.factor, out=scratch)
    out.copy_(scratch)
    if not scale.view(torch.int16).numpy().all():
        out.masked_fill_(scale == 0, 0.0)


def _scales(rows: Tensor) -> Tensor:
    """The scales (H, S, 1) bfloat16 of rows; in place, unless they lie behind an odd number of codes."""
    width = rows.shape[-1]
    if width % 2:
        rows, width = (
            rows[..., width - SCALE_BYTES :].clone(memory_format=torch.contiguous_format),
            SCALE_BYTES,
        )
    return rows.view(torch.bfloat16)[..., width // 2 - 1 :]

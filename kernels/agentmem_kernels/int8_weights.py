"""Rows times weights that are one byte each: for a few rows, whose time is that of reading the weights.

torch's own product is no part of its public face and reads past rows whose width is no multiple of sixteen; the one in C
reads twice as fast. Knows no layers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem_kernels import on_cpu
from agentmem_kernels.backends import Backend, native


def multiply_int8(x: Tensor, steps: Tensor, scales: Tensor, *, backend: Backend = "auto") -> Tensor:
    """Multiply x (M, K) by steps (N, K) int8, and the outputs by scales (N,) in x's dtype: (M, N) in x's dtype.

    Sums are fp32. For torch's own product K is a multiple of 16, which is not checked.

    Raises:
        ValueError: shapes or dtypes do not fit.
        BackendError: the backend asked for cannot run.
    """
    fit = x.ndim == 2 and steps.ndim == 2 and x.shape[1] == steps.shape[1] and scales.shape == steps.shape[:1]
    if not fit or steps.dtype != torch.int8 or scales.dtype != x.dtype:
        raise ValueError(
            f"x (M, K), steps (N, K) int8 and scales (N,) do not fit: {tuple(x.shape)} {x.dtype}, "
            f"{tuple(steps.shape)} {steps.dtype}, {tuple(scales.shape)} {scales.dtype}"
        )
    if native(x, scales, fits=steps.is_contiguous(), backend=backend):
        return on_cpu.multiply_int8(x, steps, scales)
    return torch._weight_int8pack_mm(x, steps, scales)  # noqa: SLF001  # no public name

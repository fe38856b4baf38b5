"""The fast path: torch's fused attention where it can express the case, the written-out form where it cannot.

Keys and values are never repeated for grouped heads. A few queries are folded, the G heads of a group
becoming G rows of one head, because fused attention on the CPU packs the keys once per query head:
for 14/2 heads, D=64, 2,700 keys, bf16, one thread, one query takes 0.25 ms folded and 3.2 ms with
``enable_gqa``. Many queries go through ``enable_gqa`` (512 queries: 62 ms, repeating K/V 64 ms), which
needs no mask repeated per group. Softcaps, and sinks for a few queries, are written out in fp32. Where the CPU
multiplies bfloat16 fast, bfloat16 goes through :mod:`.on_cpu`, which takes 0.04 ms for that query and 13 ms for 512;
without a compiler, many queries go through :mod:`.products`, which takes 36 ms for them.

On CUDA cuDNN's attention is never used: it builds a plan for every new length, which takes seconds, and
here every chunk and every decoded token has one. The fused kernel that takes masks knows no grouped heads,
so many queries meet repeated keys and values: a copy of the working set, not of the history.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from agentmem_kernels import on_cpu
from agentmem_kernels._shapes import check
from agentmem_kernels.backends import Backend, native
from agentmem_kernels.products import attend_by_products, pays
from agentmem_kernels.scratch import Fresh, Scratch

FOLD_QUERIES = 8
"""Up to so many queries a group's heads are folded into rows: measured, beyond it nothing is won."""
_CUDA_BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
_cuda_flags = threading.Lock()  # torch keeps the choice of backends in one place for all threads


def attend(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    scaling: float,
    mask: Tensor | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    scratch: Scratch | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Attend with q (B, Hq, T, D) to keys and values (B, Hkv, S, D); returns (B, Hq, T, D) in q's dtype.

    ``mask`` is additive, (..., T, S); give it in q's dtype, another one is converted at each call.
    ``sinks`` (Hq,) are logits that take part in the softmax without a value. Intermediate results lie in
    ``scratch``, or in new memory. ``backend``: see :mod:`.backends`; there is no Triton form. Equal to
    :func:`agentmem_kernels.reference.attend` up to rounding. Raises ValueError for shapes that do not fit, and
    BackendError when the backend asked for cannot run.
    """
    check(q, keys, values, mask, sinks)
    few = q.shape[2] <= FOLD_QUERIES
    if softcap is not None or (sinks is not None and few):
        return _written_out(q, keys, values, scaling, mask, softcap, sinks)
    bias = None if mask is None else mask.to(q.dtype)
    if sinks is not None:
        keys, values, bias = _with_sink_column(q, keys, values, bias, sinks)
    fits = (few or pays()) and scaling > 0 and on_cpu.fits(q.shape[3])
    if native(q, keys, values, fits=fits, backend=backend):
        return on_cpu.attend(q, keys, values, scaling=scaling, mask=bias)
    G = q.shape[1] // keys.shape[1]
    if not few and _by_products(q):
        found = scratch or Fresh()
        return attend_by_products(q, keys, values, scaling=scaling, mask=bias, scratch=found)
    if G == 1 or not few:
        return _fused(q, keys, values, bias, scaling)
    rows, bias = _fold(q, keys, bias)
    return _fused(rows, keys, values, bias, scaling).reshape(q.shape)


def _by_products(q: Tensor) -> bool:
    return q.dtype == torch.bfloat16 and not q.is_cuda and pays()


def _fused(q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, scaling: float) -> Tensor:
    """Torch's fused attention, heads grouped or not."""
    G = q.shape[1] // keys.shape[1]
    if not q.is_cuda:
        return scaled_dot_product_attention(q, keys, values, attn_mask=bias, scale=scaling, enable_gqa=G > 1)
    if G > 1:
        keys, values = keys.repeat_interleave(G, dim=1), values.repeat_interleave(G, dim=1)
    with _cuda_flags, sdpa_kernel(_CUDA_BACKENDS):
        return scaled_dot_product_attention(q, keys, values, attn_mask=bias, scale=scaling)


def _fold(q: Tensor, keys: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Let the G heads of a group be rows of one head: q as (B, Hkv, G * T, D), the mask to match."""
    B, Hq, T, D = q.shape
    Hkv, S = keys.shape[1], keys.shape[2]
    G = Hq // Hkv
    if bias is not None and bias.ndim >= 3 and bias.shape[-3] != 1:  # one mask per query head
        bias = bias.reshape(*bias.shape[:-3], Hkv, G * T, S)
    elif bias is not None:
        bias = bias.repeat(*[1] * (bias.ndim - 2), G, 1)
    return q.reshape(B, Hkv, G * T, D), bias


def _written_out(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    scaling: float,
    mask: Tensor | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """What fused attention cannot express, as in the reference, with every key read once per group."""
    B, Hkv, S, _ = keys.shape
    T = q.shape[2]
    rows, bias = _fold(q, keys, mask)
    scores = torch.matmul(rows.float(), keys.float().transpose(2, 3)).mul_(scaling)  # (B, Hkv, G*T, S)
    if softcap is not None:
        scores = scores.div_(softcap).tanh_().mul_(softcap)
    if bias is not None:
        scores += bias
    if sinks is not None:
        column = sinks.float().repeat_interleave(T).view(1, Hkv, -1, 1).expand(B, Hkv, scores.shape[2], 1)
        scores = torch.cat([scores, column], dim=-1)
    share = torch.softmax(scores, dim=-1)[..., :S]
    return torch.matmul(share, values.float()).to(q.dtype).reshape(q.shape)


def _with_sink_column(
    q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, sinks: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Add one zero key and value whose bias is the head's sink: exactly a sink logit without a value."""
    B, Hq, T, D = q.shape
    Hkv, S = keys.shape[1], keys.shape[2]
    zero = keys.new_zeros(B, Hkv, 1, D)
    seen = q.new_zeros(B, Hq, T, S) if bias is None else bias.expand(B, Hq, T, S)
    column = sinks.to(q.dtype).view(1, Hq, 1, 1).expand(B, Hq, T, 1)
    return (
        torch.cat([keys, zero], dim=2),
        torch.cat([values, zero], dim=2),
        torch.cat([seen, column], dim=-1),
    )

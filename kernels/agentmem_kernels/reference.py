"""The specification: softmax attention written out in fp32. Slow and obvious; the fast path must agree.

Every product and sum in fp32::

    score = scaling * q . k
    score = softcap * tanh(score / softcap)                                  when given (Gemma 2)
    score = score + mask                                                     when given
    share = exp(score) / (sum over keys of exp(score) + exp(sink of head))   sink when given (gpt-oss)
    out   = sum over keys of share * v, rounded to the dtype of q
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem_kernels._shapes import check


def attend(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    scaling: float,
    mask: Tensor | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attend with q (B, Hq, T, D) to keys and values (B, Hkv, S, D); returns (B, Hq, T, D) in q's dtype.

    Query head h reads key/value head ``h // (Hq // Hkv)``. ``mask`` is additive, (..., T, S), zero where
    a key is seen and -inf where not; every query must see a key. ``sinks`` (Hq,) are logits that take
    part in the softmax without a value. Raises ValueError for shapes that do not fit.
    """
    check(q, keys, values, mask, sinks)
    B, Hq, T, _ = q.shape
    G = Hq // keys.shape[1]
    keys_all = keys.float().repeat_interleave(G, dim=1)  # (B, Hq, S, D)
    values_all = values.float().repeat_interleave(G, dim=1)
    scores = torch.matmul(q.float(), keys_all.transpose(2, 3)) * scaling  # (B, Hq, T, S)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores + mask.float()
    if sinks is not None:
        column = sinks.float().view(1, Hq, 1, 1).expand(B, Hq, T, 1)
        scores = torch.cat([scores, column], dim=-1)
    share = torch.softmax(scores, dim=-1)[..., : keys.shape[2]]
    return torch.matmul(share, values_all).to(q.dtype)

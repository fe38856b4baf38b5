"""The specification of every kernel, written out. Slow and obvious; the fast paths must agree.

Softmax attention, every product and sum in fp32::

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
from agentmem_kernels.int8_rows import LARGEST, LEAST_SCALE, SCALE_BYTES, Channels
from agentmem_kernels.rotation import Rotation


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


def rotated(rotation: Rotation | None, x: Tensor, start: int) -> Tensor:
    """Rotate x (H, T, D) to positions start, start + 1, ...; each step rounded as the table says.

    One element at a time: ``x * C[p] + x[partner] * S[p]`` on the rotated dims, ``x * C[p]`` on the others.
    """
    if rotation is None:
        return x.clone()
    step = torch.float32 if rotation.in_fp32 else x.dtype
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    for t in range(x.shape[1]):
        for d in range(x.shape[2]):
            one = x[:, t, d].to(step) * rotation.C[start + t, d]
            if d < rotation.width:
                other = x[:, t, int(rotation.partner[d])].to(step) * rotation.S[start + t, d]
                one = one + other
            out[:, t, d] = one.to(x.dtype)
    return out


def block_masses(
    queries: Tensor,
    keys: Tensor,
    *,
    index: Tensor | None = None,
    dead: Tensor | None = None,
    edge: int | None = None,
) -> Tensor:
    """See :func:`agentmem_kernels.masses.block_masses`: one softmax per row over all keys, in fp32, added up."""
    Hkv, M, _ = queries.shape
    parts = []
    for head in range(Hkv):
        blocks = keys[head] if index is None else keys[head][index[head]]  # (C, L, W)
        logits = torch.einsum("mw,clw->mcl", queries[head].to(keys.dtype).float(), blocks.float())
        if dead is not None:
            logits = logits.masked_fill(dead[head], -torch.inf)
        share = (
            torch.softmax(logits.reshape(M, -1), dim=-1).reshape(logits.shape).nan_to_num(0.0).sum(0)
        )  # (C, L)
        size = share.shape[1]
        shares = [share] if edge is None else [share, share[:, :edge], share[:, size - edge :]]
        parts.append(torch.stack([some.sum(1) for some in shares]))
    return torch.stack(parts, dim=1)


def best_blocks(scores: Tensor, num_best: int, *, alive: Tensor | None = None) -> Tensor:
    """See :func:`agentmem_kernels.ranking.best_blocks`: sorted by (alive, score, number)."""
    living = [True] * scores.shape[1] if alive is None else alive.tolist()
    rows = []
    for row in scores.tolist():
        places = [
            (lives, score if lives else 0, n)
            for n, (lives, score) in enumerate(zip(living, row, strict=True))
        ]
        rows.append(sorted(n for _, _, n in sorted(places)[len(row) - num_best :]))
    return torch.tensor(rows, dtype=torch.int64, device=scores.device).view(len(scores), num_best)


def best_and_neighbours(
    masses: Tensor,
    ids: Tensor,
    count: int,
    num_best: int,
    num_sure: int,
    leaning: float,
    *,
    alive: Tensor | None = None,
) -> Tensor:
    """See :func:`agentmem_kernels.neighbours.best_and_neighbours`: the rule in its own words, head by head."""
    living = set(range(count)) if alive is None else {n for n in range(count) if bool(alive[n])}
    rows = []
    for head in range(ids.shape[0]):
        parts = dict(zip(ids[head].tolist(), masses[:, head].T.tolist(), strict=True))
        ranked = sorted((n for n in parts if n in living), key=lambda n: (parts[n][0], n), reverse=True)
        chosen = ranked[:num_sure]
        claims: dict[int, float] = {}
        for n in chosen:
            whole, first, last = parts[n]
            for neighbour, part in ((n - 1, first), (n + 1, last)):
                if part > leaning * whole and neighbour in living and neighbour not in chosen:
                    claims[neighbour] = max(part, claims.get(neighbour, 0.0))
        claimed = sorted(claims, key=lambda n: (claims[n], n), reverse=True)
        order = [*chosen, *claimed, *(n for n in ranked[num_sure:] if n not in claims)]
        rows.append(sorted(order[:num_best]))
    return torch.tensor(rows, dtype=torch.int64, device=ids.device).view(len(rows), num_best)


def rounded(x: Tensor, channels: Channels | None = None) -> Tensor:
    """See :func:`agentmem_kernels.int8_rows.round_rows`: x (H, S, D) as rows (H, S, D + 2) int8, one by one."""
    alike = x.float() if channels is None else (x.float() - channels.offset) / channels.factor
    rows = torch.empty(*x.shape[:2], x.shape[2] + SCALE_BYTES, dtype=torch.int8)
    for head in range(x.shape[0]):
        for token in range(x.shape[1]):
            row = alike[head, token]
            scale = (row.abs().max() / LARGEST).clamp(min=LEAST_SCALE).to(torch.bfloat16)
            codes = (row / scale.float()).round().clamp(-LARGEST, LARGEST).to(torch.int8)
            rows[head, token] = torch.cat([codes, scale.view(1).view(torch.int8)])
    return rows


def widened(rows: Tensor, dtype: torch.dtype, channels: Channels | None = None) -> Tensor:
    """See :func:`agentmem_kernels.int8_rows.widen_rows`: every step in fp32, the sum rounded to ``dtype``."""
    D = rows.shape[2] - SCALE_BYTES
    scale = rows[..., D:].clone(memory_format=torch.contiguous_format).view(torch.bfloat16).float()
    x = rows[..., :D].float() * scale
    if channels is not None:
        x = (channels.offset + x * channels.factor) * (scale != 0)
    return x.to(dtype)


def multiply_int8(x: Tensor, steps: Tensor, scales: Tensor) -> Tensor:
    """X (M, K) times steps (N, K) int8 times scales (N,), in fp32 and rounded once: (M, N) in x's dtype."""
    return (x.float() @ steps.float().T * scales.float()).to(x.dtype)

"""Attention written out in fp32, for when more than its output is wanted: what each key received.

Equal to :func:`agentmem_kernels.attend` up to rounding. Works through one KV head at a time, in runs of
queries, in memory that is used again. Knows no log and no rule.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem.memory.placements import Sight
from agentmem.memory.rooms import Rooms

_LOGITS = 1 << 22
"""Logits made at once, at most (16 MB), but for a single query's."""


def attend_and_count(
    sight: Sight, rooms: Rooms, *, scaling: float, softcap: float | None, sinks: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Attention of one layer's chunk.

    Args:
        sight: what is seen; pairs are multiplied half by half.
        rooms: where numbers in between are kept.
        scaling: factor on q.k.
        softcap: cap of the logits, as in Gemma 2.
        sinks: (Hq,) extra logits that take probability, as in gpt-oss.

    Returns:
        The output (1, Hq, T, E) in the queries' dtype, and the probability that each key received from all
        T queries together, (Hq, S) fp32.
    """
    _, Hq, T, _ = sight.queries.shape
    Hkv, S, E = sight.values.shape
    G = Hq // Hkv
    run = max(1, _LOGITS // (G * S))
    out = torch.empty_like(sight.queries)
    received = torch.zeros(Hq, S, device=out.device)
    values = rooms.room("explicit values", (S, E), torch.float32)
    for head in range(Hkv):
        rows = slice(head * G, (head + 1) * G)
        parts = _wide_keys(sight, head, rooms)
        values.copy_(sight.values[head])
        for start in range(0, T, run):
            chunk = slice(start, min(start + run, T))
            logits = _logits(sight, parts, rows, chunk, rooms).mul_(scaling)  # (G, t, S)
            if softcap is not None:
                logits.div_(softcap).tanh_().mul_(softcap)
            _hide(logits, sight.mask, rows, chunk)
            _to_probabilities(logits, None if sinks is None else sinks[rows])
            received[rows] += logits.sum(1)
            out[0, rows, chunk] = (logits.view(-1, S) @ values).view(G, -1, E).to(out.dtype)
    return out, received


Parts = list[tuple[slice, slice, Tensor]]
"""(columns in S, dims in E, those keys in fp32)."""


def _wide_keys(sight: Sight, head: int, rooms: Rooms) -> Parts:
    """The keys of one head: all of them, or of pairs the halves that are not zero."""
    _, S, E = sight.keys.shape
    cuts = [(slice(0, S), slice(0, E))]
    if sight.pairs:
        cuts = [(slice(0, sight.newest), slice(0, E // 2)), (slice(sight.newest, S), slice(E // 2, E))]
    parts = []
    for number, (columns, dims) in enumerate(cuts):
        keys = sight.keys[head, columns, dims]
        wide = rooms.room(f"explicit keys {number}", tuple(keys.shape), torch.float32)
        parts.append((columns, dims, wide.copy_(keys)))
    return parts


def _logits(sight: Sight, parts: Parts, rows: slice, chunk: slice, rooms: Rooms) -> Tensor:
    queries = sight.queries[0, rows, chunk].float()  # (G, t, E)
    G, t, _ = queries.shape
    logits = rooms.room("explicit logits", (G, t, sight.keys.shape[1]), torch.float32)
    for columns, dims, keys in parts:
        logits[:, :, columns] = queries[:, :, dims] @ keys.T
    return logits


def _hide(logits: Tensor, mask: Tensor | None, rows: slice, chunk: slice) -> None:
    """Add the part of an additive mask, (T, S) or (Hq, T or 1, S), that belongs to these queries."""
    if mask is not None:
        own = mask if mask.dim() == 2 else mask[rows]
        logits += own if own.shape[-2] == 1 else own[..., chunk, :]


def _to_probabilities(logits: Tensor, sinks: Tensor | None) -> None:
    """Softmax in place, (G, t, S); ``sinks`` (G,) take part without a column."""
    highest = logits.amax(-1, keepdim=True)
    if sinks is not None:
        highest = torch.maximum(highest, sinks.float()[:, None, None])
    logits.sub_(highest).exp_()
    total = logits.sum(-1, keepdim=True)
    if sinks is not None:
        total = total + (sinks.float()[:, None, None] - highest).exp()
    logits.div_(total)

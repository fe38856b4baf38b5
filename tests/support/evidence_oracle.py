"""Evidence figures stated slowly and plainly, token by token; shares no code with what it checks.

Only rotating one vector to one position is asked of the layer's own table, which has tests of its own.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from agentmem.memory.rotation import LayerSpec


def block_shares(
    spec: LayerSpec,
    queries: Tensor,
    keys: Tensor,
    blocks: Sequence[range],
    dead: Collection[int],
    *,
    scaling: float,
    distance: int,
) -> list[list[list[float]]]:
    """The attention each block gets: ``found[kv_head][row][block]``, one row per query head and token.

    Queries (Hq, T, D) and all keys (Hkv, S, D), both raw; a query stands ``distance`` tokens behind every key.
    """
    found: list[list[list[float]]] = []
    for kv_head in range(spec.num_kv_heads):
        rows = []
        for head in range(spec.num_q_heads):
            if head * spec.num_kv_heads // spec.num_q_heads != kv_head:
                continue
            placed = _placed(spec, keys[kv_head], 0)
            for query in _placed(spec, queries[head], distance):
                dots = (placed @ query).tolist()
                logits = {
                    token: dots[token] * scaling for block in blocks for token in block if token not in dead
                }
                highest = max(logits.values())
                weights = {token: math.exp(logit - highest) for token, logit in logits.items()}
                total = sum(weights.values())
                rows.append([sum(weights.get(token, 0.0) for token in block) / total for block in blocks])
        found.append(rows)
    return found


def mean_over_rows(rows: Sequence[Sequence[float]]) -> list[float]:
    """Each block's mean share."""
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def by_mass(mass: Sequence[float], chosen: Collection[int]) -> list[int]:
    """Distinct chosen blocks, the heaviest first, of equals the newest first."""
    return sorted(set(chosen), key=lambda block: (mass[block], block), reverse=True)


def reciprocal_rank(order: Sequence[int], wanted: Collection[int]) -> float:
    """One over the place of the first wanted block."""
    for place, block in enumerate(order):
        if block in wanted:
            return 1 / (place + 1)
    return 0.0


def discounted_gain(order: Sequence[int], wanted: Collection[int]) -> float:
    """Normalised discounted cumulative gain."""
    flags = [block in wanted for block in order]
    ideal = [True] * len(wanted)
    dcg = [sum(flag / math.log2(i + 2) for i, flag in enumerate(row)) for row in (flags, ideal)]
    return dcg[0] / dcg[1]


def _placed(spec: LayerSpec, vectors: Tensor, position: int) -> Tensor:
    """Every vector of (n, D) rotated to one position."""
    if spec.rotary is None:
        return vectors
    return torch.stack([spec.rotary.rotate(one[None], torch.tensor([position]))[0] for one in vectors])

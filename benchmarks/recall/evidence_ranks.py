"""Chosen blocks against the blocks that hold the answer: hits, recall@k, nDCG and MRR. Knows no model and no files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from agentmem.memory.selectors import top_blocks

CUTOFFS = (1, 2, 5, 10, 20)
"""The k of recall@k."""

Scores = dict[str, float]
"""Figure -> value, 0 to 1."""


def best_choice(mass: Tensor, alive: Tensor | None, num_chosen: int) -> Tensor:
    """The K living blocks of largest mass per KV head: no other choice covers more. (Hkv, N) -> (Hkv, K)."""
    return _top(mass, alive, num_chosen)


def random_choice(mass: Tensor, alive: Tensor | None, num_chosen: int, seed: int) -> Tensor:
    """K living blocks per KV head, drawn without looking; the same for the same seed. (Hkv, N) -> (Hkv, K)."""
    drawn = torch.rand(mass.shape, generator=torch.Generator().manual_seed(seed))
    return _top(drawn, alive, num_chosen)


def ranked(mass: Tensor, chosen: Tensor) -> list[int]:
    """Distinct chosen blocks, largest mass first, equal ones newest first: (N,) and ids of any shape."""
    ids = torch.unique(chosen)
    order = sorted(zip(mass[ids].tolist(), ids.tolist(), strict=True), reverse=True)
    return [block for _, block in order]


def hits(chosen: Iterable[int], wanted: frozenset[int]) -> Scores:
    """Whether any, and whether all, of the wanted blocks are chosen."""
    found = wanted.intersection(chosen)
    return {"any": float(bool(found)), "all": float(found == wanted)}


def rank_scores(order: Sequence[int], wanted: frozenset[int]) -> Scores:
    """Figures of a ranking that may be shorter than what there was to rank; what it lacks counts as missed.

    ``recall@k``: part of the wanted blocks among the first k; ``recall``: among all. ``ndcg``: each wanted block gains
    1 / log2(1 + its rank), divided by what the wanted blocks at the front would gain (Järvelin and Kekäläinen 2002).
    ``mrr``: 1 / rank of the first wanted block, 0 when there is none.
    """
    places = [place for place, block in enumerate(order, start=1) if block in wanted]
    gain = math.fsum(1 / math.log2(1 + place) for place in places)
    ideal = math.fsum(1 / math.log2(1 + place) for place in range(1, len(wanted) + 1))
    recall = {f"recall@{k}": sum(place <= k for place in places) / len(wanted) for k in CUTOFFS}
    return {
        **hits(order, wanted),
        **recall,
        "recall": len(places) / len(wanted),
        "ndcg": gain / ideal,
        "mrr": 1 / places[0] if places else 0.0,
    }


def mean_scores(rows: Sequence[Mapping[str, float]]) -> Scores:
    """The mean of each figure over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: _mean([row[name] for row in rows if name in row]) for name in names}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _top(scores: Tensor, alive: Tensor | None, num_chosen: int) -> Tensor:
    if not num_chosen:
        return torch.empty(scores.shape[0], 0, dtype=torch.int64)
    living = scores if alive is None else scores.masked_fill(~alive.cpu(), -1.0)
    return top_blocks(living, num_chosen)

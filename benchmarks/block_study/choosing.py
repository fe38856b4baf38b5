"""Choosing tokens by block from the true mass of each token: what a rule with such blocks could do at best.

R rows are (layer, KV head) pairs, n evictable tokens, N blocks. A choice is (R, n) bool. Budgets are tokens and are
spent to the last one. Knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Blocks:
    """A partition of n tokens into N blocks."""

    def __init__(self, starts: Sequence[int], tokens: int, device: torch.device) -> None:
        if not starts or starts[0] != 0 or starts[-1] >= tokens:
            raise ValueError(
                f"blocks of {tokens} tokens begin with 0 and before their end, got {starts[:3]}..."
            )
        self.starts = torch.tensor(starts, device=device)
        stops = torch.cat([self.starts[1:], self.starts.new_tensor([tokens])])
        self.sizes = stops - self.starts
        """(N,) tokens in each."""
        if int(self.sizes.min()) < 1:
            raise ValueError("the starts of blocks must ascend")
        self.of = torch.repeat_interleave(self.sizes)
        """(n,) the block of each token."""
        self.offsets = torch.arange(tokens, device=device) - self.starts[self.of]
        """(n,) its place in it."""

    def sums(self, mass: Tensor) -> Tensor:
        """The mass of each block: (R, n) -> (R, N)."""
        total = mass.double().cumsum(1)
        ends = total[:, self.starts + self.sizes - 1]
        return ends.diff(dim=1, prepend=ends.new_zeros(len(ends), 1)).to(mass.dtype)


def densest(scores: Tensor, blocks: Blocks, budget: int | Tensor) -> Tensor:
    """The blocks of most score per token, as many as the budget holds; the last one is cut to fit.

    For blocks of one size that divides the budget these are the best blocks, and no choice covers more; for others
    no whole choice of blocks covers more than this one and a last block's worth.

    Args:
        scores: (R, N).
        blocks: N blocks.
        budget: tokens for each row, or (R,) of them, at most n.
    """
    order = (scores / blocks.sizes).argsort(dim=1, descending=True, stable=True)
    return _filled(order, blocks, budget)


def with_neighbours(scores: Tensor, blocks: Blocks, budget: int, percent: int) -> Tensor:
    """The densest blocks for all but ``percent`` of the budget, then blocks beside those (±1), the best one's first.

    EM-LLM's contiguity (arXiv 2407.09450). A neighbour counts what the better of the chosen blocks beside it counts;
    what is left then goes to the next best. The last block is cut to fit. (R, N) -> (R, n).
    """
    N = scores.shape[1]
    best = (scores / blocks.sizes).argsort(dim=1, descending=True, stable=True)
    ids = torch.arange(N, device=scores.device).expand_as(best)
    ranks = torch.empty_like(best).scatter_(1, best, ids)  # 0: the best
    sizes = blocks.sizes[best]
    before = torch.empty_like(ranks).scatter_(1, best, sizes.cumsum(1) - sizes)
    chosen = before < budget - budget * percent // 100
    beside = torch.nn.functional.pad(ranks.masked_fill(~chosen, 3 * N), (1, 1), value=3 * N)
    nearest = torch.minimum(beside[:, :-2], beside[:, 2:])
    after = torch.where(nearest < N, N + nearest, 2 * N + ranks)
    order = torch.where(chosen, ranks, after) * N - ids  # of two beside one block, the newer first
    return _filled(order.argsort(dim=1), blocks, budget)


def shared(scores: Tensor, layers: Tensor | None) -> Tensor:
    """Each row's scores replaced by their sum over the rows of its layer; None: over all rows. (R, N) -> (R, N)."""
    if layers is None:
        return scores.sum(0, keepdim=True).expand_as(scores)
    return _by_layer(scores, layers)[layers]


def gains(scores: Tensor, layers: Tensor) -> Tensor:
    """What a layer's heads gain together by the kth place of each: (R, N) -> (layers, N), falling in k."""
    return _by_layer(scores.sort(dim=1, descending=True).values, layers)


def best_split(gains: Tensor, places: int) -> Tensor:
    """The split of ``places`` over layers that gains most: (layers, N) -> (layers,) int64.

    Greedy, and exact since gains fall. Ties go to the first layer.
    """
    L, N = gains.shape
    order = gains.flatten().argsort(descending=True, stable=True)[:places]
    return torch.bincount(order // N, minlength=L)


def first_layers_twice(layers: int, places: int, most: int, *, first: int = 2) -> list[int]:
    """``places`` for each of the layers, but twice as many in the first ones, taken evenly from the rest.

    The total stays; ``most`` bounds a layer's places. Nothing changes where there are no other layers.
    """
    if layers <= first:
        return [places] * layers
    total = layers * places
    more = min(2 * places, most, total // first)
    rest, odd = divmod(total - first * more, layers - first)
    return [more] * first + [rest + (number < odd) for number in range(layers - first)]


def _by_layer(rows: Tensor, layers: Tensor) -> Tensor:
    """Sums over the rows of each layer: (R, N) -> (layers, N)."""
    return rows.new_zeros(int(layers.max()) + 1, rows.shape[1]).index_add_(0, layers, rows)


def _filled(order: Tensor, blocks: Blocks, budget: int | Tensor) -> Tensor:
    """Blocks taken in order until the budget is spent, the last one's first tokens only: (R, N) ids -> (R, n)."""
    sizes = blocks.sizes[order]
    room = budget if isinstance(budget, int) else budget[:, None]
    left = room - (sizes.cumsum(1) - sizes)
    taken = torch.empty_like(sizes).scatter_(1, order, left.clamp(min=0))
    return blocks.offsets < taken[:, blocks.of]

"""The best blocks, and beside them neighbours where what was found there probably goes on beyond the edge.

The rule is the one that :func:`best_and_neighbours` states; this module only carries it out without leaving the
device. Knows no queries and no keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem_kernels.backends import Backend, first_that_runs

MOST = 512
"""More candidates than this go to torch on "auto": each is compared with each."""


def best_and_neighbours(
    masses: Tensor,
    ids: Tensor,
    count: int,
    num_best: int,
    num_sure: int,
    leaning: float,
    *,
    alive: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """K of N blocks per head, ascending: (H, K) int64.

    The ``num_sure`` best candidates are chosen by their whole mass. Each of them whose first or last part holds more
    than ``leaning`` of its mass claims the block before or behind it, candidate or not, with that part's mass (the
    larger, where two claim one). Claimed blocks that are alive and not chosen come next, the most claimed first, and
    then the next best candidates. Equals: the newest first.

    Args:
        masses: (3, H, C) fp32, at least 0: whole, first part, last part of each candidate; last dim contiguous.
        ids: (H, C) int64, the candidates, no two of a row equal; at least ``num_best`` of them alive.
        count: N, below 2**31.
        num_best: K.
        num_sure: at most K.
        leaning: part of a block's mass that its edge must exceed.
        alive: (N,) bool; a block that is not alive is never chosen.
        backend: see :mod:`.backends`.

    Raises:
        ValueError: shapes do not fit.
        BackendError: the backend asked for cannot run.
    """
    _, H, C = masses.shape
    if masses.shape[0] != 3 or ids.shape != (H, C) or (C > 1 and masses.stride(2) != 1):
        raise ValueError(
            f"masses and ids: expected (3, H, C) and (H, C), got {tuple(masses.shape)}, {tuple(ids.shape)}"
        )
    if not 0 <= num_sure <= num_best <= C:
        raise ValueError(f"num_best: expected {num_sure} to {C}, got {num_best}")
    if alive is not None and (alive.shape != (count,) or alive.dtype != torch.bool):
        raise ValueError(f"alive: expected ({count},) bool, got {tuple(alive.shape)} {alive.dtype}")

    def by_triton() -> Tensor:
        from agentmem_kernels.on_triton import neighbours  # noqa: PLC0415  # only where Triton runs

        return neighbours.best_and_neighbours(
            masses, ids.contiguous(), count, num_best, num_sure, leaning, alive
        )

    def plain() -> Tensor:
        return _plain(masses, ids, count, num_best, num_sure, leaning, alive)

    if not num_best or (C > MOST and backend == "auto"):
        return plain()
    return first_that_runs("best_and_neighbours", masses, backend, by_triton, plain)


def _plain(
    masses: Tensor,
    ids: Tensor,
    count: int,
    num_best: int,
    num_sure: int,
    leaning: float,
    alive: Tensor | None,
) -> Tensor:
    """Among the candidates and what they claim alone, so that the cost does not grow with N."""
    ids, at = ids.sort(dim=1)  # from here on what comes later is newer
    masses = masses.gather(2, at.expand_as(masses))
    living = ids >= 0 if alive is None else alive[ids]
    C = ids.shape[1]
    ranks = _ranks(masses[0].masked_fill(~living, -1.0))
    sure = torch.topk(ranks, num_sure, dim=1).indices  # (H, s), no two ranks are equal
    claimed, claims = _claimed(masses, ids, sure, count, leaning, alive)
    order = torch.where(living, ranks, -1).scatter(1, sure, 2 * C + ranks.gather(1, sure) + claims.shape[1])
    order.masked_fill_(
        (ids[:, :, None] == claimed[:, None]).any(2), -1
    )  # they take part as what they are claimed by
    order = torch.cat([order, torch.where(claims > 0, _ranks(claims) + C, -1)], dim=1)
    best = torch.topk(order, num_best, dim=1).indices
    return torch.cat([ids, claimed], dim=1).gather(1, best).sort(dim=1).values


def _claimed(
    masses: Tensor, ids: Tensor, sure: Tensor, count: int, leaning: float, alive: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Blocks that the sure ones claim, ascending, and how much: (H, 2 s) both; -2 and 0 where there is none."""
    whole, first, last = masses.gather(2, sure.expand(3, *sure.shape))
    chosen = ids.gather(1, sure)
    claimed = torch.cat([chosen - 1, chosen + 1], dim=1)
    claims = torch.cat([first, last], dim=1)
    nothing = claims <= leaning * torch.cat([whole, whole], dim=1)
    nothing |= (claimed < 0) | (claimed >= count) | (claimed[:, :, None] == chosen[:, None]).any(2)
    if alive is not None:
        nothing |= ~alive[claimed.clamp(0, count - 1)]
    claims = claims.masked_fill(nothing, 0.0)
    claimed, at = claimed.masked_fill(claims <= 0, -2).sort(dim=1, stable=True)
    claims = claims.gather(1, at)
    again = (claimed[:, 1:] == claimed[:, :-1]) & (claimed[:, 1:] >= 0)  # two claim one: the larger counts
    claims[:, 1:] = torch.where(again, torch.maximum(claims[:, 1:], claims[:, :-1]), claims[:, 1:])
    claims[:, :-1].masked_fill_(again, 0.0)
    return claimed.masked_fill(claims <= 0, -2), claims


def _ranks(scores: Tensor) -> Tensor:
    """Each block's rank, 0 the worst, the newer above the older among equals."""
    places = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
    return torch.empty_like(places).scatter_(1, scores.argsort(dim=1, stable=True), places)

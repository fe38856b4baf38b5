"""The best blocks, and beside them neighbours where what was found there probably goes on beyond the edge.

The rule is the one that :func:`best_and_neighbours` states; this module only carries it out without leaving the
device. Knows no queries and no keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem_kernels.backends import Backend, first_that_runs
from agentmem_kernels.ranking import best_blocks

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
    """Over all N blocks; those that are no candidates rank behind all candidates."""
    whole, first, last = masses.new_full((3, len(ids), count), -1.0).scatter(2, ids.expand_as(masses), masses)
    if alive is not None:
        whole = whole.masked_fill(~alive, -1.0)
    sure = torch.zeros_like(whole, dtype=torch.bool).scatter(
        1, best_blocks(whole, num_sure, backend="torch"), True
    )
    older = first.masked_fill(~sure | (first <= leaning * whole), 0.0)
    newer = last.masked_fill(~sure | (last <= leaning * whole), 0.0)
    pad = torch.nn.functional.pad
    claims = torch.maximum(pad(older[:, 1:], (0, 1)), pad(newer[:, :-1], (1, 0)))
    order = torch.where(claims > 0, _ranks(claims) + count, _ranks(whole)).masked_fill(sure, 2 * count)
    if alive is not None:
        order = order.masked_fill(~alive, -1)
    return best_blocks(order, num_best, backend="torch")


def _ranks(scores: Tensor) -> Tensor:
    """Each block's rank, 0 the worst, the newer above the older among equals."""
    places = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
    return torch.empty_like(places).scatter_(1, scores.argsort(dim=1, stable=True), places)

"""The best blocks per head, with a fixed answer where scores are equal: the newest block wins.

``torch.topk`` leaves ties undefined. Here a score and a block's number become one whole number, and no two are
equal, so any way of finding the largest finds the same, and nothing has to be looked at on the host. Knows no rule.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem_kernels.backends import Backend, first_that_runs

_LOWER = (1 << 32) - 1


def best_blocks(
    scores: Tensor, num_best: int, *, alive: Tensor | None = None, backend: Backend = "auto"
) -> Tensor:
    """Ids of the K best per row, ascending; equal scores go to the newest. (H, N) -> (H, K) int64.

    Args:
        scores: fp32 without NaN, or whole numbers of 32 bits; the last dim contiguous.
        num_best: K, at most N.
        alive: (N,) bool; a block that is not alive ranks behind all others, the newest first.
        backend: see :mod:`.backends`.

    Raises:
        ValueError: shapes do not fit.
        BackendError: the backend asked for cannot run.
    """
    N = scores.shape[1]
    if not 0 <= num_best <= N:
        raise ValueError(f"num_best: expected 0 to {N}, got {num_best}")
    best = torch.topk(sort_keys(scores, alive, backend=backend), num_best, dim=1, sorted=False).values
    return best.bitwise_and_(_LOWER).sort(dim=1).values


def sort_keys(scores: Tensor, alive: Tensor | None = None, *, backend: Backend = "auto") -> Tensor:
    """Whole numbers that sort as (score, block's number) do: (H, N) int64, no two of a row equal."""
    if scores.ndim != 2 or (scores.shape[1] > 1 and scores.stride(1) != 1):
        raise ValueError(f"scores: expected (H, N), the last dim contiguous, got {tuple(scores.shape)}")
    if scores.dtype not in (torch.float32, torch.int32, torch.int64):
        raise ValueError(f"scores: expected fp32 or whole numbers, got {scores.dtype}")
    if alive is not None and (alive.shape != scores.shape[1:] or alive.dtype != torch.bool):
        raise ValueError(f"alive: expected ({scores.shape[1]},) bool, got {tuple(alive.shape)} {alive.dtype}")

    def by_triton() -> Tensor:
        from agentmem_kernels.on_triton import ranking  # noqa: PLC0415  # only where Triton runs

        return ranking.sort_keys(scores, alive)

    def plain() -> Tensor:
        ordered = scores.long()
        if scores.is_floating_point():
            bits = (scores + 0.0).view(torch.int32)  # -0.0 equals 0.0
            ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()
        if alive is not None:
            ordered = ordered.masked_fill(~alive, -(1 << 31))
        return (ordered << 32) | torch.arange(scores.shape[1], device=scores.device)

    if not scores.numel():
        return torch.empty(scores.shape, dtype=torch.int64, device=scores.device)
    return first_that_runs("sort_keys", scores, backend, by_triton, plain)

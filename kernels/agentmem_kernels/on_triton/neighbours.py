"""Best blocks and claimed neighbours, one program per head. See :mod:`agentmem_kernels.neighbours`.

Everything is a comparison of each candidate with each other one, so there is nothing to sort and nothing to wait for.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from agentmem_kernels.on_triton.trial import around


@triton.jit
def _behind(value, number, other_value, other_number, other_there):
    """How many of the others come before each: a higher value, or an equal one and a newer block."""
    higher = other_value[None, :] > value[:, None]
    newer = (other_value[None, :] == value[:, None]) & (other_number[None, :] > number[:, None])
    return tl.sum(((higher | newer) & other_there[None, :]).to(tl.int32), 1)


@triton.jit
def _among(number, other_number, other_there):
    """Which numbers are among the others."""
    same = (other_number[None, :] == number[:, None]) & other_there[None, :]
    return tl.sum(same.to(tl.int32), 1) > 0


@triton.jit
def _older(number, other_number, other_there):
    """How many of the others are older than each number."""
    return tl.sum(((other_number[None, :] < number[:, None]) & other_there[None, :]).to(tl.int32), 1)


# fmt: off
@triton.jit(do_not_specialize=["C", "N", "num_best", "num_sure"])
def _choose(
    masses, ids, alive, out, C, N, num_best, num_sure, leaning, part, masses_h, BC: tl.constexpr,
    ALIVE: tl.constexpr,
):
    """The best, what they claim beyond their edges, and the next best: ascending ids of one head."""
    h = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BC)
    living = c < C
    number = tl.load(ids + h * C + c, mask=living, other=0).to(tl.int32)
    whole = tl.load(masses + h * masses_h + c, mask=living, other=-1.0)
    first = tl.load(masses + part + h * masses_h + c, mask=living, other=0.0)
    last = tl.load(masses + 2 * part + h * masses_h + c, mask=living, other=0.0)
    if ALIVE:
        living = living & (tl.load(alive + number, mask=living, other=0) != 0)
    place = _behind(whole, number, whole, number, living)
    sure = living & (place < num_sure)

    older, newer = number - 1, number + 1
    to_older = sure & (first > leaning * whole) & (older >= 0) & (_among(older, number, sure) == 0)
    to_newer = sure & (last > leaning * whole) & (newer < N) & (_among(newer, number, sure) == 0)
    if ALIVE:
        to_older = to_older & (tl.load(alive + older, mask=to_older, other=0) != 0)
        to_newer = to_newer & (tl.load(alive + newer, mask=to_newer, other=0) != 0)
    both = (newer[None, :] == older[:, None]) & to_newer[None, :] & to_older[:, None]
    first = tl.maximum(first, tl.max(tl.where(both, last[None, :], 0.0), 1))
    to_newer = to_newer & (_among(newer, older, to_older) == 0)

    free = num_best - num_sure
    before = _behind(first, older, first, older, to_older) + _behind(first, older, last, newer, to_newer)
    older_taken = to_older & (before < free)
    before = _behind(last, newer, first, older, to_older) + _behind(last, newer, last, newer, to_newer)
    newer_taken = to_newer & (before < free)
    claimed = tl.sum(to_older.to(tl.int32), 0) + tl.sum(to_newer.to(tl.int32), 0)

    rest = living & (sure == 0)
    rest = rest & (_among(number, older, to_older) == 0) & (_among(number, newer, to_newer) == 0)
    left = free - tl.minimum(claimed, free)
    own = sure | (rest & (_behind(whole, number, whole, number, rest) < left))

    row = out + h * num_best
    at = _older(number, number, own) + _older(number, older, older_taken) + _older(number, newer, newer_taken)
    tl.store(row + at, number.to(tl.int64), mask=own)
    at = _older(older, number, own) + _older(older, older, older_taken) + _older(older, newer, newer_taken)
    tl.store(row + at, older.to(tl.int64), mask=older_taken)
    at = _older(newer, number, own) + _older(newer, older, older_taken) + _older(newer, newer, newer_taken)
    tl.store(row + at, newer.to(tl.int64), mask=newer_taken)
# fmt: on


def best_and_neighbours(
    masses: Tensor,
    ids: Tensor,
    count: int,
    num_best: int,
    num_sure: int,
    leaning: float,
    alive: Tensor | None,
) -> Tensor:
    """See :func:`agentmem_kernels.neighbours.best_and_neighbours`; shapes are checked there."""
    _, H, C = masses.shape
    BC = max(16, triton.next_power_of_2(C))
    out = ids.new_empty(H, num_best)
    with around(masses):
        _choose[(H,)](
            masses,
            ids,
            ids if alive is None else alive.view(torch.uint8),
            out,
            C,
            count,
            num_best,
            num_sure,
            leaning,
            masses.stride(0),
            masses.stride(1),
            BC=BC,
            ALIVE=alive is not None,
            num_warps=4 if BC <= 128 else 8,
        )
    return out

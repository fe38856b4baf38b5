"""Best blocks and claimed neighbours, one program per head. See :mod:`agentmem_kernels.neighbours`.

Everything is a comparison of each candidate with each other one, so there is nothing to sort and nothing to wait for.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from agentmem_kernels.on_triton.trial import around

OTHERS = 16
"""Blocks that all candidates are compared with at a time: what is written between barriers is read in such runs."""


@triton.jit
def _behind(value, number, others, ids, shift, C, BJ: tl.constexpr):
    """How many of the others come before each: a higher value, or an equal one and a newer block.

    ``others`` holds a value per candidate, negative for those that do not count; their blocks are ``ids`` + shift.
    """
    count = tl.zeros(value.shape, tl.int32)
    for start in range(0, C, BJ):
        j = start + tl.arange(0, BJ)
        other = tl.load(others + j, mask=j < C, other=-1.0)[None, :]
        block = tl.load(ids + j, mask=j < C, other=0).to(tl.int32)[None, :] + shift
        before = (other > value[:, None]) | ((other == value[:, None]) & (block > number[:, None]))
        count += tl.sum((before & (other >= 0)).to(tl.int32), 1)
    return count


@triton.jit
def _older(number, others, ids, shift, C, BJ: tl.constexpr):
    """How many of the others that count are older than each number."""
    count = tl.zeros(number.shape, tl.int32)
    for start in range(0, C, BJ):
        j = start + tl.arange(0, BJ)
        other = tl.load(others + j, mask=j < C, other=-1.0)[None, :]
        block = tl.load(ids + j, mask=j < C, other=0).to(tl.int32)[None, :] + shift
        count += tl.sum(((block < number[:, None]) & (other >= 0)).to(tl.int32), 1)
    return count


@triton.jit
def _value_of(number, others, ids, shift, C, BJ: tl.constexpr):
    """The value of that block among the others; -1 where it is not among them."""
    value = tl.full(number.shape, -1.0, tl.float32)
    for start in range(0, C, BJ):
        j = start + tl.arange(0, BJ)
        other = tl.load(others + j, mask=j < C, other=-1.0)[None, :]
        block = tl.load(ids + j, mask=j < C, other=0).to(tl.int32)[None, :] + shift
        value = tl.maximum(value, tl.max(tl.where(block == number[:, None], other, -1.0), 1))
    return value


@triton.jit
def _note(place, there, value):
    """Write values, negative for those that are not there, for all threads to read."""
    tl.store(place, tl.where(there, value, -1.0))
    tl.debug_barrier()


# fmt: off
@triton.jit(do_not_specialize=["C", "N", "num_best", "num_sure"])
def _choose(
    masses, ids, alive, room, out, C, N, num_best, num_sure, leaning, part, masses_h, BC: tl.constexpr,
    BJ: tl.constexpr, ALIVE: tl.constexpr,
):
    """The best, what they claim beyond their edges, and the next best: ascending ids of one head."""
    h = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BC)
    ids += h * C
    best = room + h * 8 * BC  # eight rows of values, negative for candidates that do not count there
    surely, to_older, to_newer, single, rest, own, taken = (
        best + BC, best + 2 * BC, best + 3 * BC, best + 4 * BC, best + 5 * BC, best + 6 * BC, best + 7 * BC,
    )
    living = c < C
    number = tl.load(ids + c, mask=living, other=0).to(tl.int32)
    older, newer = number - 1, number + 1
    whole = tl.load(masses + h * masses_h + c, mask=living, other=0.0)
    first = tl.load(masses + part + h * masses_h + c, mask=living, other=0.0)
    last = tl.load(masses + 2 * part + h * masses_h + c, mask=living, other=0.0)
    if ALIVE:
        living = living & (tl.load(alive + number, mask=living, other=0) != 0)
    _note(best + c, living, whole)
    sure = living & (_behind(whole, number, best, ids, 0, C, BJ) < num_sure)
    _note(surely + c, sure, whole)

    back = sure & (first > leaning * whole) & (older >= 0) & (_value_of(older, surely, ids, 0, C, BJ) < 0)
    forth = sure & (last > leaning * whole) & (newer < N) & (_value_of(newer, surely, ids, 0, C, BJ) < 0)
    if ALIVE:
        back = back & (tl.load(alive + older, mask=back, other=0) != 0)
        forth = forth & (tl.load(alive + newer, mask=forth, other=0) != 0)
    _note(single + c, forth, last)
    first = tl.maximum(first, _value_of(older, single, ids, 1, C, BJ))  # claimed from both sides: once
    _note(to_older + c, back, first)
    forth = forth & (_value_of(newer, to_older, ids, -1, C, BJ) < 0)
    _note(to_newer + c, forth, last)

    free = num_best - num_sure
    before = _behind(first, older, to_older, ids, -1, C, BJ) + _behind(first, older, to_newer, ids, 1, C, BJ)
    back_taken = back & (before < free)
    before = _behind(last, newer, to_older, ids, -1, C, BJ) + _behind(last, newer, to_newer, ids, 1, C, BJ)
    forth_taken = forth & (before < free)
    claimed = tl.sum(back.to(tl.int32), 0) + tl.sum(forth.to(tl.int32), 0)
    left = free - tl.minimum(claimed, free)
    others = living & (sure == 0) & (_value_of(number, to_older, ids, -1, C, BJ) < 0)
    others = others & (_value_of(number, to_newer, ids, 1, C, BJ) < 0)
    _note(rest + c, others, whole)
    mine = sure | (others & (_behind(whole, number, rest, ids, 0, C, BJ) < left))
    tl.store(own + c, tl.where(mine, 1.0, -1.0))
    tl.store(taken + c, tl.where(back_taken, 1.0, -1.0))
    tl.store(single + c, tl.where(forth_taken, 1.0, -1.0))
    tl.debug_barrier()

    row = out + h * num_best
    at = _older(number, own, ids, 0, C, BJ) + _older(number, taken, ids, -1, C, BJ)
    tl.store(row + at + _older(number, single, ids, 1, C, BJ), number.to(tl.int64), mask=mine)
    at = _older(older, own, ids, 0, C, BJ) + _older(older, taken, ids, -1, C, BJ)
    tl.store(row + at + _older(older, single, ids, 1, C, BJ), older.to(tl.int64), mask=back_taken)
    at = _older(newer, own, ids, 0, C, BJ) + _older(newer, taken, ids, -1, C, BJ)
    tl.store(row + at + _older(newer, single, ids, 1, C, BJ), newer.to(tl.int64), mask=forth_taken)
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
    BC = max(OTHERS, triton.next_power_of_2(C))
    room = masses.new_empty(H, 8, BC)
    out = ids.new_empty(H, num_best)
    with around(masses):
        _choose[(H,)](
            masses,
            ids,
            ids if alive is None else alive.view(torch.uint8),
            room,
            out,
            C,
            count,
            num_best,
            num_sure,
            leaning,
            masses.stride(0),
            masses.stride(1),
            BC=BC,
            BJ=OTHERS,
            ALIVE=alive is not None,
            num_warps=4 if BC <= 128 else 8,
        )
    return out

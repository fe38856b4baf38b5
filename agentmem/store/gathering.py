"""Cutting a gather up among segments: what is checked and copied of each, all heads at once.

A gather takes some hundred blocks a head from all over the log, a few from each segment. Looking at those of all
heads and segments together costs as much as looking at those of one, and where tokens come in runs of a page's
length or half of it, as blocks do, only their first ones need looking at. Integers only: knows no files and no bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agentmem.store.extents import BranchMap, Ints
from agentmem.store.pages import PAGE_SLOTS

_STEPS = np.arange(PAGE_SLOTS)
_WIDTHS = (PAGE_SLOTS, PAGE_SLOTS // 2)


@dataclass(frozen=True)
class Part:
    """What a gather takes from one segment."""

    segment: int
    cells: list[int]
    """The pages of single heads (head * pages + page) that hold its rows; one may come more than once."""
    runs: list[tuple[int, int, int]]
    """(head, start, stop): columns [start, stop) of the gather's rows of that head."""


@dataclass(frozen=True)
class Gather:
    """All that a gather takes.

    ``rows`` (Hkv, n) are head * capacity + slot; each stands for itself and the ``width`` - 1 rows behind it.
    """

    rows: Ints
    width: int
    parts: list[Part]


def plan_gather(branch: BranchMap, tokens: Ints, head_rows: Ints) -> Gather:
    """Where ``tokens`` (Hkv, S), not empty, lie; ``head_rows`` (Hkv, 1) is where each head's rows begin."""
    for width in _WIDTHS:
        firsts = _first_of_runs(tokens, width)
        if firsts is None:
            continue
        segments, slots = branch.locate(firsts)
        others, lasts = branch.locate(firsts + (width - 1))
        if np.array_equal(segments, others) and bool((lasts - slots == width - 1).all()):
            rows = slots + head_rows
            return Gather(rows, width, _parts(segments, rows, width))
    segments, slots = branch.locate(tokens)
    rows = slots + head_rows
    return Gather(rows, 1, _parts(segments, rows, 1))


def spread(rows: Ints, width: int) -> Ints:
    """Every single row that rows (n,) of a :class:`Gather` stand for."""
    return rows if width == 1 else (rows[:, None] + _STEPS[:width]).ravel()


def _first_of_runs(tokens: Ints, width: int) -> Ints | None:
    """The first tokens (Hkv, n) of runs of ``width``; None when they do not come in such runs."""
    heads, count = tokens.shape
    if count % width:
        return None
    runs = tokens.reshape(heads, -1, width)
    return runs[..., 0] if bool((runs - runs[..., :1] == _STEPS[:width]).all()) else None


def _parts(segments: Ints, rows: Ints, width: int) -> list[Part]:
    """Cut rows (Hkv, n) where segment or head changes, and put together what one segment has."""
    heads, count = rows.shape
    begins = np.ones((heads, count), dtype=np.bool_)
    np.not_equal(segments[:, 1:], segments[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    owners = segments.ravel()[starts].tolist()
    cuts = [*starts.tolist(), heads * count]
    pages = [(rows >> 5).ravel().tolist()]  # // PAGE_SLOTS
    if width > 1 and bool(((rows & (PAGE_SLOTS - 1)) + width > PAGE_SLOTS).any()):
        pages.append(((rows + (width - 1)) >> 5).ravel().tolist())
    parts: dict[int, Part] = {}
    for start, stop, segment in zip(cuts, cuts[1:], owners, strict=False):
        part = parts.setdefault(segment, Part(segment, [], []))
        head, first = divmod(start, count)
        part.runs.append((head, first, first + stop - start))
        for numbers in pages:
            part.cells.extend(numbers[start:stop] if width > 1 else dict.fromkeys(numbers[start:stop]))
    return list(parts.values())

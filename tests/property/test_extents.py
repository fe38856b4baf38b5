"""Random histories of extents against a plain list: positions map to slots, slots are used once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmem.store.branch import Branch, BranchTurn
from agentmem.store.extents import BranchMap, Extent, Tail, merged

CAPACITY = 8

steps = st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=25)


@given(steps)
def test_map_equals_a_list(history: list[tuple[bool, int]]) -> None:
    """After any appends and truncations every position is where a plain list says."""
    mapped, tail, oracle = BranchMap(), Tail(0, 0), []
    for append, number in history:
        if append:
            taken, tail = tail.take(number, CAPACITY)
            for segment, slot, count in taken:
                mapped.extend(segment, slot, count)
                oracle += [(segment, slot + i) for i in range(count)]
        else:
            length = max(0, len(oracle) - number)
            mapped.truncate(length)
            del oracle[length:]

    assert mapped.length == len(oracle)
    positions = np.arange(len(oracle), dtype=np.int64)[::-1].reshape(1, -1)
    if oracle:
        segments, slots = mapped.locate(positions)
        assert list(zip(segments[0].tolist(), slots[0].tolist(), strict=True)) == oracle[::-1]
    for start in range(0, len(oracle), 3):
        for stop in range(start, len(oracle) + 1, 4):
            pieces = mapped.pieces(start, stop)
            found = [(p.segment, p.slot + i) for p in pieces for i in range(p.count)]
            assert found == oracle[start:stop]
    again = BranchMap(mapped.pieces(0, mapped.length))
    assert again.pieces(0, again.length) == mapped.pieces(0, mapped.length)


@given(st.lists(st.integers(0, 30), max_size=20))
def test_slots_are_taken_once(counts: list[int]) -> None:
    """The tail hands out consecutive slots, each once, and never beyond a segment's end."""
    tail, slots = Tail(3, 5), []
    for count in counts:
        taken, tail = tail.take(count, CAPACITY)
        assert sum(n for _, _, n in taken) == count
        slots += [(segment, slot + i) for segment, slot, n in taken for i in range(n)]

    assert slots == sorted(set(slots))
    assert all(0 <= slot < CAPACITY for _, slot in slots)
    assert [segment * CAPACITY + slot for segment, slot in slots] == list(range(29, 29 + len(slots)))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8)), max_size=12))
def test_merged_ranges(pairs: list[tuple[int, int]]) -> None:
    """Merging keeps exactly the members, sorted, disjoint and not touching."""
    ranges = [(start, start + length) for start, length in pairs]
    joined = merged(ranges)

    assert {i for r in joined for i in range(*r)} == {i for r in ranges for i in range(*r)}
    assert all(a[1] < b[0] for a, b in pairwise(joined))
    assert all(start < stop for start, stop in joined)


@given(st.lists(st.integers(0, 5), max_size=12), st.sets(st.integers(0, 11)))
def test_branch_equals_a_list(lengths: list[int], forgotten: set[int]) -> None:
    """A branch finds turns by position and range as a plain list does."""
    branch, holders = Branch(), []
    for number, length in enumerate(lengths):
        start = branch.length
        branch.append(BranchTurn(number, start, start + length, number in forgotten))
        holders += [number] * length

    assert [branch.holding(p) for p in range(-1, len(holders) + 1)] == [None, *holders, None]
    for start in range(len(holders) + 1):
        for stop in range(start, len(holders) + 1):
            found = [turn.id for turn in branch.overlapping(start, stop)]
            assert found == sorted(set(holders[start:stop]))
    dead = {p for r in branch.dead() for p in range(*r)}
    assert dead == {p for p, holder in enumerate(holders) if holder in forgotten}


def test_gaps_are_refused() -> None:
    """Extents that leave a gap, or turns that do, are never taken for a branch."""
    with pytest.raises(ValueError, match="5"):
        BranchMap([Extent(0, 0, 0, 4), Extent(5, 0, 5, 1)])
    with pytest.raises(ValueError, match="starts at 1"):
        Branch([BranchTurn(1, 1, 2)])


def test_adjacent_turns_make_one_extent() -> None:
    """However many turns follow each other in a segment, the map holds one extent."""
    mapped = BranchMap(Extent(i, 0, i, 1) for i in range(100))

    assert mapped.pieces(0, 100) == [Extent(0, 0, 0, 100)]

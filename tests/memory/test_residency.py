"""The residency policy, over integers alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmem.errors import ConfigError
from agentmem.memory.residency import Residency

histories = st.lists(st.sets(st.integers(0, 30), min_size=1, max_size=6), min_size=1, max_size=40)


@given(histories, st.integers(6, 12), st.sampled_from([0.0, 0.1, 0.9, 1.0]))
def test_every_asked_block_is_resident_in_a_slot_of_its_own(
    history: list[set[int]], slots: int, decay: float
) -> None:
    """After each call all asked blocks have distinct slots, and only missing ones are to be loaded."""
    residency = Residency(slots, decay=decay)
    content: dict[int, int] = {}
    for asked in history:
        placement = residency.place(asked)

        assert set(placement.slots) == asked
        assert len(set(placement.slots.values())) == len(asked)
        assert all(0 <= slot < slots for slot in placement.slots.values())
        content |= {slot: block for block, slot in placement.load.items()}
        assert all(content[slot] == block for block, slot in placement.slots.items())
        assert not set(placement.evicted) & asked
        assert len(residency) <= slots


@given(histories, st.integers(6, 12))
def test_equal_histories_give_equal_placements(history: list[set[int]], slots: int) -> None:
    """The policy is deterministic: no clock, no hash order."""
    first, second = Residency(slots), Residency(slots)

    for asked in history:
        assert first.place(sorted(asked)) == second.place(sorted(asked))


def test_plain_lru_evicts_the_longest_unused() -> None:
    """With decay 0 only the time of the last use counts."""
    residency = Residency(2, decay=0.0)
    for block in (1, 1, 1, 2, 1, 2):
        residency.place([block])

    assert (1,) == residency.place([3]).evicted


def test_plain_lfu_evicts_the_least_used() -> None:
    """With decay 1 only the number of uses counts."""
    residency = Residency(2, decay=1.0)
    for block in (1, 1, 1, 2):
        residency.place([block])

    assert (2,) == residency.place([3]).evicted


def test_hits_and_misses_are_counted() -> None:
    """A block found resident is a hit, one to be loaded a miss."""
    residency = Residency(4)
    residency.place([1, 2])
    residency.place([2, 3])

    assert (1, 3) == (residency.hits, residency.misses)


def test_dropped_blocks_are_loaded_again() -> None:
    """A block whose content changed is not taken for resident."""
    residency = Residency(2)
    residency.place([1])
    residency.drop([1, 99])

    assert 1 not in residency
    assert set(residency.place([1]).load) == {1}


def test_more_blocks_than_slots_is_refused() -> None:
    """The budget is never exceeded; the error says what to change, and nothing was evicted."""
    residency = Residency(2)
    residency.place([1, 2])

    with pytest.raises(ConfigError, match="3 blocks asked at once"):
        residency.place([3, 4, 5])
    assert 1 in residency
    assert 2 in residency


@pytest.mark.parametrize(("slots", "decay"), [(0, 0.1), (-1, 0.1), (2, -0.1), (2, 1.1)])
def test_nonsense_sizes_are_refused(slots: int, decay: float) -> None:
    """No slots, or a decay that is none."""
    with pytest.raises(ConfigError):
        Residency(slots, decay=decay)

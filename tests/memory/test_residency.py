"""The residency policy, over integers alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmem.errors import ConfigError
from agentmem.memory.residency import NOWHERE, Residency

histories = st.lists(st.sets(st.integers(0, 30), min_size=1, max_size=6), min_size=1, max_size=40)


def use(residency: Residency, *blocks: int) -> np.ndarray:
    """Use blocks as a slab does; the slots of all of them afterwards, NOWHERE for those that found no room."""
    asked = np.array(sorted(blocks))
    slots = residency.find(asked)
    missing = slots == NOWHERE
    room = residency.make_room(int(missing.sum()))
    residency.hold(asked[missing][: len(room)], room)
    slots[np.flatnonzero(missing)[: len(room)]] = room
    return slots


@given(histories, st.integers(1, 12), st.sampled_from([0.0, 0.1, 0.9, 1.0]))
def test_a_held_block_lies_where_it_was_put(history: list[set[int]], slots: int, decay: float) -> None:
    """Whatever is asked, a slot found holds that block's content, and never more are held than there are slots."""
    residency, content = Residency(slots, decay=decay), {}
    for asked in history:
        blocks = np.array(sorted(asked))
        found = residency.find(blocks)
        assert all(
            content[slot] == block for block, slot in zip(blocks, found, strict=True) if slot != NOWHERE
        )

        missing = blocks[found == NOWHERE]
        room = residency.make_room(len(missing))
        assert len(set(room)) == len(room) and not set(room) & set(found)
        assert len(room) == min(len(missing), slots - int((found != NOWHERE).sum()))
        content |= dict(zip(room, missing, strict=False))
        residency.hold(missing[: len(room)], room)
        assert len(residency) <= slots
        assert sorted(set(residency.held)) == list(residency.held)


def scores(history: list[set[int]], decay: float) -> dict[int, float]:
    """The score as the paper has it, step by step."""
    found: dict[int, float] = {}
    for asked in history:
        found = {block: score * decay for block, score in found.items()}
        found |= {block: found.get(block, 0.0) + 1.0 for block in asked}
    return found


@given(histories, st.sampled_from([0.1, 0.5, 0.9, 1.0]))
def test_the_lowest_score_leaves_first(history: list[set[int]], decay: float) -> None:
    """Blocks leave in the order of the decayed score, computed here in its plain form."""
    residency = Residency(40, decay=decay)
    for asked in history:
        use(residency, *asked)
    exact = scores(history, decay)
    residency.find(np.array([], dtype=np.int64))  # a step that uses nothing
    before = set(residency.held)
    residency.make_room(40 - len(before) + 1)
    (gone,) = before - set(residency.held)

    assert exact[gone] <= min(exact.values()) * (1 + 1e-9)


@given(histories, st.integers(1, 12))
def test_equal_histories_give_equal_slots(history: list[set[int]], slots: int) -> None:
    """The policy is deterministic: no clock, no hash order."""
    first, second = Residency(slots), Residency(slots)

    for asked in history:
        assert list(use(first, *asked)) == list(use(second, *asked))


def test_plain_lru_evicts_the_longest_unused() -> None:
    """With decay 0 only the time of the last use counts."""
    residency = Residency(2, decay=0.0)
    for block in (1, 1, 1, 2, 1, 2, 3):
        use(residency, block)

    assert [2, 3] == list(residency.held)


def test_plain_lfu_evicts_the_least_used() -> None:
    """With decay 1 only the number of uses counts."""
    residency = Residency(2, decay=1.0)
    for block in (1, 1, 1, 2, 3):
        use(residency, block)

    assert [1, 3] == list(residency.held)


def test_hits_and_misses_are_counted() -> None:
    """A block found is a hit, one to be loaded a miss."""
    residency = Residency(4)
    use(residency, 1, 2)
    use(residency, 2, 3)

    assert (1, 3) == (residency.hits, residency.misses)


def test_dropped_blocks_are_not_found() -> None:
    """A block whose content changed is not taken for held, and its slot is free."""
    residency = Residency(2)
    slots = use(residency, 1, 2)

    assert [slots[0]] == list(residency.drop(lambda blocks: blocks == 1))
    assert 1 not in residency and 2 in residency
    assert [slots[0]] == list(residency.make_room(1)) and 2 in residency


def test_what_does_not_fit_is_not_held() -> None:
    """More blocks than slots: as many as fit, none of them pushing another out."""
    residency = Residency(2)
    slots = use(residency, 3, 4, 5)

    assert NOWHERE == slots[2]
    assert [3, 4] == list(residency.held)


def test_an_interrupted_use_leaves_no_wrong_block() -> None:
    """Room that was made and never filled is room again; what had to leave for it is not found."""
    residency = Residency(2)
    use(residency, 1, 2)
    residency.find(np.array([7]))
    left = residency.make_room(1)

    assert 7 not in residency and 1 == len(residency)
    assert list(left) == list(residency.make_room(1))


@pytest.mark.parametrize(("slots", "decay"), [(0, 0.1), (-1, 0.1), (2, -0.1), (2, 1.1)])
def test_nonsense_sizes_are_refused(slots: int, decay: float) -> None:
    """No slots, or a decay that is none."""
    with pytest.raises(ConfigError):
        Residency(slots, decay=decay)

"""Fitting a haystack to its budget, and places in it for needles."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.recall.tasks.haystacks import DEPTHS, EssayHaystack, NoiseHaystack, with_needles
from benchmarks.recall.tasks.lengths import (
    TokenCount,
    TooShortError,
    largest_fitting,
    scattered,
    spread,
)


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=60),
    st.integers(0, 20),
    st.integers(0, 900),
    st.one_of(st.none(), st.integers(1, 90)),
)
def test_largest_fitting_is_the_largest_that_fits(
    steps: list[int], roomless: int, budget: int, guess: int | None
) -> None:
    """Equal to trying every number of units, wherever the search begins and however uneven the units are."""

    def size(units: int) -> int:
        if units <= roomless:
            return 0
        return sum(steps[: min(units, len(steps))]) + 40 * max(0, units - len(steps))

    if size(1) > budget:
        with pytest.raises(TooShortError, match=f"{budget} tokens are asked for"):
            largest_fitting(size, budget, guess)
        return
    best = next(units for units in range(1, 200) if size(units + 1) > budget)
    found = largest_fitting(size, budget, guess)
    assert found == best or size(found) == size(best) == 0


def test_a_search_without_end_ends() -> None:
    """Where no number of units ever has room, the search gives up instead of growing for ever."""
    assert largest_fitting(lambda _units: 0, 1_000) < 10_000


def test_largest_fitting_looks_few_times() -> None:
    """A million tokens of even units are fitted in a handful of counts, fewer still from a good guess."""
    looked: list[int] = []

    def size(units: int) -> int:
        looked.append(units)
        return 25 * units + 60

    assert largest_fitting(size, 1_000_000) == 39_997
    assert len(looked) <= 20
    assert max(looked) < 200_000
    looked.clear()
    assert largest_fitting(size, 1_000_000, 39_997) == 39_997
    assert len(looked) <= 5


def test_spread_covers_from_first_to_last() -> None:
    """Even places include both ends; one place is the middle; more than there are repeat."""
    assert spread(range(10, 21), 3) == [10, 15, 20]
    assert spread(range(10, 21), 1) == [15]
    assert spread(range(2), 4) == [0, 0, 0, 1]
    with pytest.raises(TooShortError):
        spread(range(0), 1)


def test_scattered_places_are_distinct_and_ascend() -> None:
    """As many places as asked for, none twice, in order; too few to choose from is an error."""
    places = scattered(range(5, 40), 20, random.Random(1))

    assert len(set(places)) == 20 and places == sorted(places)
    assert 5 <= places[0] and places[-1] < 40
    with pytest.raises(TooShortError, match="3 needles need as many places and there are 2"):
        scattered(range(2), 3, random.Random(1))


def test_with_needles_puts_each_before_its_line() -> None:
    """Needles at the front, between and at the end; two at one place keep their order."""
    assert with_needles(["a", "b"], " ", ["N0", "N1", "N2", "N3"], [0, 1, 1, 2]) == "N0 a N1 N2 b N3"


def test_noise_has_needles_at_distinct_lines_and_essays_at_forty_depths() -> None:
    """As RULER: noise takes any lines, each once; an essay takes some of 40 even depths, both ends among them."""
    noise = NoiseHaystack().places(random.Random(2), 30, 30)
    essay = [place for seed in range(300) for place in EssayHaystack().places(random.Random(seed), 1_000, 4)]

    assert noise == list(range(30))
    assert (DEPTHS[0], DEPTHS[1], DEPTHS[-1], len(set(DEPTHS))) == (0, 3, 100, 40)
    assert set(essay) == {10 * depth for depth in DEPTHS}


def test_a_short_text_is_counted_once() -> None:
    """The second count of a line costs nothing; long texts are counted each time."""
    seen: list[str] = []

    def count(text: str) -> int:
        seen.append(text)
        return len(text)

    counted = TokenCount(count)

    assert [counted("line"), counted("line"), counted("x" * 5_000), counted("x" * 5_000)] == [
        4,
        4,
        5_000,
        5_000,
    ]
    assert len(seen) == 3

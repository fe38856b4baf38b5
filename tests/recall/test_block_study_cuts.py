"""Where blocks begin, against the rule of each cut stated token by token."""

from __future__ import annotations

import math
import statistics

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.block_study.cuts import (
    SURPRISE_WINDOW,
    at_messages,
    at_sentences,
    at_surprises,
    cut,
    on_grid,
    surprises,
)

NLL = st.lists(st.floats(0, 12, width=16), max_size=160)


def sizes(starts: list[int], count: int) -> list[int]:
    """Tokens of each block."""
    return [stop - start for start, stop in zip(starts, [*starts[1:], count], strict=True)]


@given(st.integers(1, 120), st.sets(st.integers(0, 130)), st.integers(1, 9), st.integers(9, 40))
def test_blocks_keep_their_bounds_and_begin_where_wanted(
    count: int, wanted: set[int], least: int, most: int
) -> None:
    """All but the last have least to most tokens; a block ends early only for a wanted token, never passing one."""
    starts = cut(count, wanted, least, most)

    assert starts[0] == 0
    assert all(least <= size <= most for size in sizes(starts, count)[:-1])
    assert sizes(starts, count)[-1] <= most
    for start, size in zip(starts, sizes(starts, count), strict=True):
        assert not wanted & set(range(start + least, start + size))
        assert size == most or start + size in wanted or start + size == count


def test_a_grid_ends_with_what_is_left() -> None:
    """Blocks of one size, the last shorter."""
    assert sizes(on_grid(20, 8), 20) == [8, 8, 4]
    assert cut(0, [], 1, 4) == on_grid(0, 4) == []


def test_messages_are_cut_at_their_bounds_and_when_they_are_long() -> None:
    """A message of 3 tokens is a block, one of 11 is cut after 4 and 8; bounds outside are left out."""
    assert at_messages(20, [-5, 0, 3, 14, 40], 4) == [0, 3, 7, 11, 14, 18]


def test_sentences_end_behind_their_marks() -> None:
    """Behind . ! ? and line ends, not within a number's token; short sentences join the next."""
    texts = ["Hi", "!", " It", " is", " 3", ".5", " now", ".\n", "So", " what", "? ", "Go", ".", "x"]

    assert at_sentences(texts, 1, 64) == [0, 2, 8, 11, 13]
    assert at_sentences(texts, 3, 64) == [0, 8, 11]
    assert at_sentences(["a"] * 10, 1, 4) == [0, 4, 8]


@given(NLL, st.sampled_from([0.5, 1.0, 2.0]))
def test_a_surprise_is_far_above_what_came_before(nll: list[float], gamma: float) -> None:
    """Above the mean of the 64 tokens before by more than gamma standard deviations; the rest is usual."""
    found = set(surprises(nll, gamma))

    for token in range(2, len(nll)):
        before = nll[max(0, token - SURPRISE_WINDOW) : token]
        limit = statistics.fmean(before) + gamma * statistics.pstdev(before)
        if not math.isclose(nll[token], limit, abs_tol=1e-6):
            assert (token in found) == (nll[token] > limit)


def test_a_surprising_token_begins_a_block() -> None:
    """Counted from the first evictable token; surprises that come too soon are passed over; unheard tokens are usual."""
    nll = [math.nan, *[1.0, 1.2] * 20]
    for token in (12, 25, 28, 38):
        nll[token] = 9.0

    assert at_surprises(nll, 5, 36, least=8, most=128) == [0, 20, 33]
    assert at_surprises(nll, 5, 36, least=1, most=128) == [0, 7, 20, 23, 33]
    assert at_surprises(nll, 5, 36, least=8, most=16) == [0, 16, 32]

"""The recall benchmark's statistics against values that were published or can be counted."""

from __future__ import annotations

import math
import random

import pytest

from benchmarks.recall.statistics import (
    LEAST_GROUPS,
    bootstrap_mean,
    mcnemar,
    paired,
    unpaired,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(successes: int, n: int, low: float, high: float) -> None:
    """The four examples of Newcombe (Statistics in Medicine 17, 1998), table I, method 3."""
    found = wilson(successes, n)

    assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    assert found.value == successes / n


def test_wilson_of_all_right_reaches_one_and_of_nothing_knows_nothing() -> None:
    """20 of 20 mirrors 0 of 20; no observation leaves everything possible."""
    assert wilson(20, 20).high == 1.0
    assert wilson(20, 20).low == pytest.approx(1 - wilson(0, 20).high)
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)
    assert math.isnan(wilson(0, 0).value)


@pytest.mark.parametrize(
    ("won", "lost", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (6, 0, 0.03125), (8, 2, 112 / 1024), (3, 3, 1.0)],
)
def test_mcnemar_counts_the_binomial_tail(won: int, lost: int, p: float) -> None:
    """Twice the tail of a fair coin, 1 at most, and the same from either side."""
    assert mcnemar(won, lost) == pytest.approx(p)
    assert mcnemar(lost, won) == pytest.approx(p)


def test_bootstrap_of_a_mean_is_near_the_normal_interval() -> None:
    """For 400 uniform values the percentile interval is the textbook one to a few percent."""
    chance = random.Random(1)
    values = [chance.random() for _ in range(400)]
    mean = sum(values) / 400
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / 399 / 400)

    found = bootstrap_mean(values)

    assert found.value == pytest.approx(mean)
    assert found.low == pytest.approx(mean - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(mean + 1.96 * error, abs=0.15 * error)
    assert found == bootstrap_mean(values)


def test_many_histories_are_drawn_whole() -> None:
    """Copies of one answer within each history tell no more than the answer itself."""
    chance = random.Random(2)
    one_each = [float(chance.random() < 0.5) for _ in range(30)]
    copied = [value for value in one_each for _ in range(10)]
    names = [str(number) for number in range(30) for _ in range(10)]

    alone = bootstrap_mean(one_each, [str(number) for number in range(30)])
    repeated = bootstrap_mean(copied, names)

    assert (alone.low, alone.high) == (repeated.low, repeated.high)
    assert bootstrap_mean(copied).high - bootstrap_mean(copied).low < 0.5 * (repeated.high - repeated.low)


def test_few_histories_keep_their_sizes() -> None:
    """Below ten histories questions are drawn within each: what differs only between them adds no width."""
    values = [0.0] * 5 + [1.0] * 5
    names = ["a"] * 5 + ["b"] * 5
    assert LEAST_GROUPS > 2

    found = bootstrap_mean(values, names)

    assert (found.low, found.value, found.high) == (0.5, 0.5, 0.5)


def test_a_question_or_two_of_each_history_are_drawn_together() -> None:
    """One question a history would be drawn every time, as if nothing were left to chance."""
    found = bootstrap_mean([0.0, 0.0, 1.0], ["a", "b", "c"])

    assert (found.low, found.high) == (0.0, 1.0)


def test_paired_differences_count_who_won() -> None:
    """The difference is question by question; a factor asks for a part of the second's score."""
    first, second = [1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0]

    found = paired(first, second)

    assert (found.difference.value, found.won, found.lost) == (0.25, 2, 1)
    assert found.p == 1.0
    assert paired(first, second, factor=0.5).difference.value == 0.5
    assert paired(first, first).difference.low == paired(first, first).difference.high == 0.0


def test_pairing_makes_the_interval_narrow() -> None:
    """Arms that agree on most questions differ with a small interval, which unpaired scores do not give."""
    chance = random.Random(3)
    second = [float(chance.random() < 0.5) for _ in range(200)]
    first = [1.0 if number < 10 else value for number, value in enumerate(second)]

    together, apart = paired(first, second).difference, unpaired(first, second)

    assert together.value == pytest.approx(apart.value)
    assert together.high - together.low < 0.5 * (apart.high - apart.low)
    assert together.clear_of(0.0)
    assert not apart.clear_of(0.0)


def test_lengths_must_agree() -> None:
    """Scores of different questions cannot be paired, nor groups given for other values."""
    with pytest.raises(ValueError, match="got 1 and 2"):
        paired([1.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="3 group names"):
        bootstrap_mean([1.0, 0.0, 1.0], ["a"])

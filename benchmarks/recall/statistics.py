"""Intervals and tests for scores between 0 and 1: Wilson, McNemar, bootstrap. Numbers in, numbers out.

Knows nothing of tasks, arms or files. Every random draw is seeded, so a table printed twice is the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 5_000
"""Draws of a bootstrap."""
LEAST_GROUPS = 10
"""With fewer histories than this, questions are drawn within each history instead of histories."""
LEAST_IN_GROUP = 5
"""With fewer questions than this in some history, they are drawn from all: one or two drawn within theirs hardly vary."""
_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval [low, high], from n observations."""

    value: float
    low: float
    high: float
    n: int

    def clear_of(self, limit: float) -> bool:
        """Whether the whole interval lies above ``limit``."""
        return self.low > limit


@dataclass(frozen=True)
class Paired:
    """Two arms on the same questions: the difference of their means, and who won where they differ."""

    difference: Interval
    won: int
    """Questions on which the first scored higher."""
    lost: int
    p: float
    """McNemar's exact two-sided p for ``won`` against ``lost``; 1 when they never differ."""


def wilson(successes: float, n: int) -> Interval:
    """Wilson's score interval for a proportion (J. Am. Stat. Assoc. 22, 1927).

    ``successes`` may be a sum of scores between 0 and 1; the interval is then at least wide enough, since
    such scores vary less than right-or-wrong ones of the same mean.
    """
    if n <= 0:
        return Interval(math.nan, 0.0, 1.0, 0)
    p = successes / n
    weight = _Z * _Z / n
    middle = (p + weight / 2) / (1 + weight)
    half = _Z / (1 + weight) * math.sqrt(p * (1 - p) / n + weight / (4 * n))
    low = 0.0 if p == 0 else middle - half
    high = 1.0 if p == 1 else middle + half
    return Interval(p, max(0.0, low), min(1.0, high), n)


def mcnemar(won: int, lost: int) -> float:
    """McNemar's exact two-sided p: how likely so uneven a split is, if each side were as likely."""
    n = won + lost
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(min(won, lost) + 1))
    return float(min(1.0, tail / 2 ** (n - 1)))


def paired(
    first: Sequence[float],
    second: Sequence[float],
    groups: Sequence[str] | None = None,
    *,
    factor: float = 1.0,
) -> Paired:
    """``first`` minus ``factor`` times ``second``, question by question, with a bootstrap interval.

    Args:
        first, second: scores of the same questions, in the same order.
        groups: the history of each question; whole histories are drawn where there are at least
            ``LEAST_GROUPS``, else questions within each history, or of all where some history has few.
        factor: what the second is multiplied by: 0.9 asks whether the first reaches 0.9 of it.

    Raises:
        ValueError: the lengths differ.
    """
    if len(first) != len(second):
        raise ValueError(f"paired scores must have one length, got {len(first)} and {len(second)}")
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    won, lost = int((a > b).sum()), int((a < b).sum())
    return Paired(bootstrap_mean(a - factor * b, groups), won, lost, mcnemar(won, lost))


def bootstrap_mean(
    values: Sequence[float] | Floats, groups: Sequence[str] | None = None, *, seed: int = 0
) -> Interval:
    """The mean with a percentile bootstrap interval (Efron 1979), drawn as ``paired`` says."""
    data = np.asarray(values, dtype=np.float64)
    if not len(data):
        return Interval(math.nan, -math.inf, math.inf, 0)
    means = _resampled(data, groups)(np.random.default_rng(seed))
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(float(data.mean()), float(low), float(high), len(data))


def unpaired(
    first: Sequence[float],
    second: Sequence[float],
    first_groups: Sequence[str] | None = None,
    second_groups: Sequence[str] | None = None,
    *,
    seed: int = 0,
) -> Interval:
    """Mean of the first minus mean of the second, of different questions; both are drawn anew."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if not len(a) or not len(b):
        return Interval(math.nan, -math.inf, math.inf, 0)
    chance = np.random.default_rng(seed)
    means = _resampled(a, first_groups)(chance) - _resampled(b, second_groups)(chance)
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(float(a.mean() - b.mean()), float(low), float(high), min(len(a), len(b)))


def _resampled(data: Floats, groups: Sequence[str] | None) -> Callable[[np.random.Generator], Floats]:
    """How to draw RESAMPLES means of this data."""
    members = _members(groups, len(data))
    if len(members) >= LEAST_GROUPS:
        return lambda chance: _by_group(data, members, chance)
    if min(len(rows) for rows in members) < LEAST_IN_GROUP:
        members = [np.arange(len(data))]
    return lambda chance: _within_groups(data, members, chance)


def _members(groups: Sequence[str] | None, n: int) -> list[NDArray[np.int64]]:
    """Indices of each group, in order of appearance; one group without names."""
    if groups is None:
        return [np.arange(n)]
    if len(groups) != n:
        raise ValueError(f"{n} values need {n} group names, got {len(groups)}")
    found: dict[str, list[int]] = {}
    for index, name in enumerate(groups):
        found.setdefault(name, []).append(index)
    return [np.asarray(rows, dtype=np.int64) for rows in found.values()]


def _by_group(data: Floats, members: Sequence[NDArray[np.int64]], chance: np.random.Generator) -> Floats:
    sums = np.asarray([data[rows].sum() for rows in members])
    sizes = np.asarray([len(rows) for rows in members], dtype=np.float64)
    drawn = chance.integers(len(members), size=(RESAMPLES, len(members)))
    means: Floats = sums[drawn].sum(1) / sizes[drawn].sum(1)
    return means


def _within_groups(data: Floats, members: Sequence[NDArray[np.int64]], chance: np.random.Generator) -> Floats:
    total: Floats = np.zeros(RESAMPLES)
    for rows in members:
        drawn = chance.integers(len(rows), size=(RESAMPLES, len(rows)))
        total += data[rows][drawn].sum(1)
    return total / len(data)

"""How much haystack fits a token budget, and places in it.

Knows sizes and numbers of lines, not what they say.
"""

from __future__ import annotations

import random
from collections.abc import Callable

_COUNTED_ONCE = 2_000
"""Texts of at most this many characters are remembered with their count; longer ones rarely come twice."""
_GUESSES = 8
"""Interpolations before plain halving takes over."""


class TooShortError(ValueError):
    """So few tokens were asked for that the task's needles do not fit."""


class TokenCount:
    """Counts tokens with the callable given, and counts a short text only once."""

    def __init__(self, count_tokens: Callable[[str], int]) -> None:
        self._count_tokens = count_tokens
        self._known: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        """Tokens of `text`."""
        if len(text) > _COUNTED_ONCE:
            return self._count_tokens(text)
        if text not in self._known:
            self._known[text] = self._count_tokens(text)
        return self._known[text]


def spread(places: range, count: int) -> list[int]:
    """`count` places evenly spaced from the first to the last, ascending; the middle one if count is 1.

    Distinct where there are as many places. Raises ``TooShortError`` if there is none.
    """
    need(places, 1)
    if count == 1:
        return [places[len(places) // 2]]
    return [places[index * (len(places) - 1) // (count - 1)] for index in range(count)]


def scattered(places: range, count: int, chance: random.Random) -> list[int]:
    """`count` distinct random places, ascending; raises ``TooShortError`` if there are fewer places."""
    need(places, count)
    return sorted(chance.sample(places, count))


def need(places: range, count: int) -> None:
    """Raises ``TooShortError`` if there are fewer than `count` places."""
    if len(places) < count:
        raise TooShortError(
            f"{count} needles need as many places and there are {len(places)}: ask for a longer history"
        )


def largest_fitting(size: Callable[[int], int], budget: int, guess: int | None = None) -> int:
    """The most units n >= 1 with size(n) <= budget, as RULER searches it; `size` grows with n.

    Interpolates first, since sizes grow almost in a straight line, and halves when that does not close in.
    `size` is 0 where n units have no room for the needles; if that is so up to one unit a token, the n returned
    has no room either. `guess` is where to look first. Raises ``TooShortError`` if one unit does not fit.
    """
    low, high = 1, 1 if guess is None else guess + 1
    low_size, high_size = size(low), size(high)
    if low_size > budget:
        raise TooShortError(
            f"{budget} tokens are asked for and {low_size} is the least: ask for a longer history"
        )
    while high_size <= budget:
        low, low_size = high, high_size
        if low_size == 0 and low > budget:
            return low
        step = (budget - low_size) * low // low_size + 1 if low_size else low
        high = low + min(step, 4 * low)
        high_size = size(high)
    tries = 0
    while high - low > 1:
        tries += 1
        middle = low + (budget - low_size) * (high - low) // (high_size - low_size)
        if tries > _GUESSES:
            middle = (low + high) // 2
        middle = min(max(middle, low + 1), high - 1)
        middle_size = size(middle)
        if middle_size <= budget:
            low, low_size = middle, middle_size
        else:
            high, high_size = middle, middle_size
    return low

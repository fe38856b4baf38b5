"""How much haystack fits a token budget, and which part of it will be far away when the question comes.

Knows sizes and lines of text, not what they say.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Margins:
    """Tokens of haystack that are kept free of needles, first and last.

    A needle among the sinks or in the window is read, not recalled, so evidence stays out of both; the
    publications place it anywhere. The default clears 64 sinks and a window of 1,024 tokens with an eighth to
    spare. Histories too short for that keep a share of their length free instead: needles then may lie in a
    window of 1,024 tokens, but not in one in proportion.
    """

    first: int = 128
    last: int = 1_152

    def within(self, tokens: int) -> Margins:
        """These margins for a history of `tokens` tokens: at most a 32nd first and 9/32 last."""
        return Margins(min(self.first, tokens // 32), min(self.last, 9 * tokens // 32))


PLAIN_MARGINS = Margins()
"""The default: 64 sinks and a window of 1,024 tokens, with room to spare."""


def between(lines: Sequence[str], joint: str, margins: Margins, count: Callable[[str], int]) -> range:
    """The indices where a needle may be put in before line i, for which both margins are kept.

    Raises ``TooShortError`` if the lines have no room between the margins.
    """
    start = _lines_of(lines, joint, margins.first, count)
    stop = len(lines) - _lines_of(lines[::-1], joint, margins.last, count)
    if start > stop:
        raise TooShortError(
            f"{len(lines)} lines leave nothing between the first {margins.first} and the last {margins.last} "
            "tokens: ask for a longer history"
        )
    return range(start, stop + 1)


def lines_between(lines: Sequence[str], joint: str, margins: Margins, count: Callable[[str], int]) -> range:
    """The indices of lines that lie wholly between the margins; for haystacks whose lines are the needles."""
    free = between(lines, joint, margins, count)
    return range(free.start, free.stop - 1)


def _lines_of(lines: Sequence[str], joint: str, tokens: int, count: Callable[[str], int]) -> int:
    """The fewest of the first lines that hold at least `tokens` tokens; one more than there are if all do not."""
    held = 0
    for index, line in enumerate(lines):
        if held >= tokens:
            return index
        held += count(joint + line)
    return len(lines) + (held < tokens)


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

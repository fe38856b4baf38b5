"""What needles are hidden in: the grass noise, or essays. Each gives lines and how they join.

Knows nothing of prompts, questions or token budgets.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from benchmarks.recall.tasks.lengths import scattered
from benchmarks.recall.tasks.prose import sentences

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
"""One line of noise, as InfiniteBench and RULER have it; about 25 tokens with its line end."""

DEPTHS = tuple(round(100 * step / 39) for step in range(40))
"""Per cent of an essay's sentences before a needle, as RULER has it."""


class Haystack(Protocol):
    """Lines to hide needles between."""

    @property
    def joint(self) -> str:
        """What stands between two lines."""
        ...

    def lines(self, chance: random.Random, count: int) -> list[str]:
        """`count` lines; fewer are the first of more, given equal chance."""
        ...

    def places(self, chance: random.Random, count: int, needles: int) -> list[int]:
        """Before which of `count` lines the needles go, ascending; raises ``TooShortError`` if there are too few."""
        ...


@dataclass(frozen=True)
class NoiseHaystack:
    """The same line over and over (RULER: `noise`)."""

    joint: str = "\n"

    def lines(self, chance: random.Random, count: int) -> list[str]:
        """`count` lines of noise."""
        return [NOISE] * count

    def places(self, chance: random.Random, count: int, needles: int) -> list[int]:
        """Distinct lines."""
        return scattered(range(count), needles, chance)


@dataclass(frozen=True)
class EssayHaystack:
    """Sentences of our own essays (RULER: `essay`, which takes Paul Graham's); see `prose`."""

    joint: str = " "

    def lines(self, chance: random.Random, count: int) -> list[str]:
        """`count` sentences."""
        return list(islice(sentences(chance), count))

    def places(self, chance: random.Random, count: int, needles: int) -> list[int]:
        """Distinct ones of 40 even depths, from 0 to 100 per cent of the sentences."""
        return sorted(int(count * depth / 100) for depth in chance.sample(DEPTHS, needles))


def with_needles(lines: Sequence[str], joint: str, needles: Sequence[str], places: Sequence[int]) -> str:
    """The text of the lines with needle i put in before line `places[i]`; `places` ascend."""
    parts: list[str] = []
    start = 0
    for needle, place in zip(needles, places, strict=True):
        parts += [*lines[start:place], needle]
        start = place
    return joint.join([*parts, *lines[start:]])

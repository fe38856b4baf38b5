"""RULER's variable tracking: a chain of assignments hidden in noise, every variable of it asked for (arXiv 2404.06654).

One chain of four hops: `VAR A = 12345`, then `VAR B = VAR A ` and so on, in order at random lines of grass noise.
The score is the share of the five names that the answer contains. The official prompt begins with a worked example
of at most 500 tokens (3-letter names), drawn anew for each history, and the instruction; the question-last form has
neither, so it is zero-shot. One question a history.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from benchmarks.recall.tasks.fitted import Asked, Draft, FittedTask, Place, Wording
from benchmarks.recall.tasks.haystacks import NOISE, with_needles
from benchmarks.recall.tasks.judges import share_of_answers
from benchmarks.recall.tasks.lengths import TooShortError, largest_fitting, scattered
from benchmarks.recall.tasks.words import unlike

HOPS = 4
EXAMPLE_TOKENS = 500

_INSTRUCTION = "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n"
_QUESTION = (
    "Question: Find all variables that are assigned the value {value} in the text above. Answer: According to the "
    "chain(s) of variable assignment in the text above, "
    f"{HOPS + 1} variables are assigned the value {{value}}, they are: "
)
_OFFICIAL = Wording(before="{example}\n" + _INSTRUCTION, after=_QUESTION, max_new_tokens=30)
_QUESTION_LAST = Wording(before="", after=_QUESTION, max_new_tokens=30)


@dataclass(frozen=True)
class Chain:
    """Variables that all get one value, each but the first from the one before it."""

    value: str
    names: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """The assignments in order, the copies with RULER's space at the end."""
        copies = zip(self.names, self.names[1:], strict=False)
        return [f"VAR {self.names[0]} = {self.value}", *(f"VAR {new} = VAR {old} " for old, new in copies)]


def chain(chance: random.Random, letters: int) -> Chain:
    """A chain with names of so many capital letters and a value from 10000 to 99998."""
    draw: Callable[[random.Random], str] = lambda c: "".join(c.choices(string.ascii_uppercase, k=letters))  # noqa: E731
    return Chain(str(chance.randrange(10_000, 99_999)), tuple(islice(unlike(chance, draw), HOPS + 1)))


@dataclass(frozen=True)
class HiddenChain:
    """A chain at distinct random lines of noise."""

    name: str = "variable_tracking"

    def draft(self, place: Place, units: int) -> Draft:
        """A context of `units` lines of noise and the chain's lines."""
        lines = [NOISE] * units
        hidden = chain(place.chance("chain"), 5)
        places = scattered(range(units), len(hidden.lines), place.chance("places"))
        asked = Asked(
            slots={"value": hidden.value, "example": self._example(place, hidden.value)},
            answers=hidden.names,
            evidence=tuple(line.strip() for line in hidden.lines),
        )
        return Draft(with_needles(lines, "\n", hidden.lines, places), (asked,))

    def _example(self, place: Place, value: str) -> str:
        """A worked example about another value, with as much noise as fits its tokens."""
        drawn = unlike(place.chance("example"), lambda chance: chain(chance, 3))
        shown = next(other for other in drawn if other.value != value)

        def written(noise: int) -> str:
            places = scattered(range(noise), len(shown.lines), place.chance("example places"))
            context = with_needles([NOISE] * noise, "\n", shown.lines, places)
            question = _QUESTION.format(value=shown.value)
            return f"{_INSTRUCTION}{context}\n{question} {' '.join(shown.names)}\n"

        def size(noise: int) -> int:
            try:
                return place.count_tokens(written(noise))
            except TooShortError:
                return 0

        return written(largest_fitting(size, EXAMPLE_TOKENS))


def variable_tracking() -> FittedTask:
    """The official prompt with its worked example."""
    return FittedTask("variable_tracking", HiddenChain(), _OFFICIAL, share_of_answers)


def variable_tracking_question_last() -> FittedTask:
    """The text alone, then the question."""
    return FittedTask("variable_tracking_question_last", HiddenChain(), _QUESTION_LAST, share_of_answers)

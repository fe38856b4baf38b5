"""RULER's needles: magic numbers and UUIDs with named keys, hidden in noise or essays (arXiv 2404.06654).

The parts that RULER's needle tasks share: the needle's sentence, the wordings, and the source that hides keys and
their values at random places. Each task's own file says which it is made of. The essays are ours (see
`prose`) and no key or value comes twice; the rest is as published.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from benchmarks.recall.tasks.fitted import Asked, Draft, Place, Wording
from benchmarks.recall.tasks.haystacks import Haystack, with_needles
from benchmarks.recall.tasks.words import seven_digits, unlike, uuid4, word_key

NEEDLE = "One of the special magic {kind}s for {key} is: {value}."

ONE_ANSWER = Wording(
    before=(
        "A special magic {kind} is hidden within the following text. Make sure to memorize it. "
        "I will quiz you about the {kind} afterwards.\n"
    ),
    after=(
        "What is the special magic {kind} for {key} mentioned in the provided text? "
        "The special magic {kind} for {key} mentioned in the provided text is"
    ),
    max_new_tokens=128,
)
"""RULER's prompt where one answer is wanted, with its grammar for that."""

MANY_ANSWERS = Wording(
    before=(
        "Some special magic {kind}s are hidden within the following text. Make sure to memorize it. "
        "I will quiz you about the {kind}s afterwards.\n"
    ),
    after=(
        "What are all the special magic {kind}s for {key} mentioned in the provided text? "
        "The special magic {kind}s for {key} mentioned in the provided text are"
    ),
    max_new_tokens=128,
)
"""RULER's prompt where several answers are wanted."""


def question_last(wording: Wording) -> Wording:
    """The same question with nothing said before the context: an agent is asked after the fact."""
    return Wording(before="", after=wording.after, max_new_tokens=wording.max_new_tokens)


@dataclass(frozen=True)
class Values:
    """A kind of value: what the prompt calls one of them, and how one is drawn."""

    kind: str
    draw: Callable[[random.Random], str]


NUMBERS = Values("number", seven_digits)
UUIDS = Values("uuid", uuid4)


@dataclass(frozen=True)
class Needle:
    """One sentence to find: a key, its value, and what the value is called."""

    key: str
    value: str
    kind: str

    @property
    def text(self) -> str:
        """The sentence as it stands in the context."""
        return NEEDLE.format(kind=self.kind, key=self.key, value=self.value)


def ask_for_one(needle: Needle, others: list[str]) -> Asked:
    """The question for one needle's value; `others` are wrong values to rank it against."""
    return Asked(
        slots={"kind": needle.kind, "key": needle.key},
        answers=(needle.value,),
        evidence=(needle.text,),
        choices=(needle.value, *others),
    )


@dataclass(frozen=True)
class HiddenNeedles:
    """Needles at random places of a haystack, and one question about some of their keys.

    `keys` keys have `values` values each, one needle a value; the question asks for `queries` of the keys at
    once and every value of theirs is an answer.
    """

    name: str
    hay: Haystack
    values_of: Values = NUMBERS
    keys: int = 1
    values: int = 1
    queries: int = 1

    def draft(self, place: Place, units: int) -> Draft:
        """A context of `units` lines of the haystack, with the needles between them."""
        lines = self.hay.lines(place.chance("hay"), units)
        needles = self._needles(place)
        shuffled = place.chance("order").sample(needles, len(needles))
        places = self.hay.places(place.chance("places"), units, len(needles))
        context = with_needles(lines, self.hay.joint, [needle.text for needle in shuffled], places)
        return Draft(context, (self._asked(place, needles),))

    def _needles(self, place: Place) -> list[Needle]:
        """All needles, those of one key together."""
        keys = islice(unlike(place.chance("keys"), word_key), self.keys)
        values = unlike(place.chance("values"), self.values_of.draw)
        return [Needle(key, next(values), self.values_of.kind) for key in keys for _ in range(self.values)]

    def _asked(self, place: Place, needles: list[Needle]) -> Asked:
        wanted = needles[: self.queries * self.values]
        if len(wanted) == 1:
            values = unlike(place.chance("values"), self.values_of.draw)
            others = [value for value in islice(values, len(needles) + 3) if value != wanted[0].value]
            return ask_for_one(wanted[0], others[:3])
        keys = list(dict.fromkeys(needle.key for needle in wanted))
        query = ", ".join(keys[:-1]) + ", and " + keys[-1] if len(keys) > 1 else keys[0]
        return Asked(
            slots={"kind": self.values_of.kind, "key": query},
            answers=tuple(needle.value for needle in wanted),
            evidence=tuple(needle.text for needle in wanted),
        )

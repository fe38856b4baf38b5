"""RULER's `niah_multikey_1` to `_3`: one key among others just like it (arXiv 2404.06654).

multikey_1: four needles in an essay (ours), one is asked for. multikey_2: every line of the haystack is itself a
needle with another key and number. multikey_3: the same, keys and values being UUIDs. Where every line is a
needle, any of them may be asked for, so one history serves 25 questions, each worded as published; a published item
has one.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.recall.tasks.fitted import Draft, FittedTask, Place
from benchmarks.recall.tasks.haystacks import EssayHaystack
from benchmarks.recall.tasks.judges import share_of_answers
from benchmarks.recall.tasks.niah import (
    NUMBERS,
    ONE_ANSWER,
    UUIDS,
    HiddenNeedles,
    Needle,
    Values,
    ask_for_one,
    question_last,
)
from benchmarks.recall.tasks.words import unlike, uuid4, word_key


@dataclass(frozen=True)
class AmongNeedles:
    """Every line a needle; `asked` of them are asked for, or all if fewer. None has another's key or value."""

    name: str
    key: Callable[[random.Random], str]
    values_of: Values
    asked: int = 25

    def draft(self, place: Place, units: int) -> Draft:
        """A context of `units` needles, and questions for some of them in random order."""
        keys = unlike(place.chance("keys"), self.key)
        values = unlike(place.chance("values"), self.values_of.draw)
        needles = [Needle(next(keys), next(values), self.values_of.kind) for _ in range(units)]
        lines = [needle.text for needle in needles]
        choice = place.chance("choices")
        asked = []
        for index in place.chance("places").sample(range(units), min(self.asked, units)):
            drawn = choice.sample(needles, min(4, units))
            wrong = [other.value for other in drawn if other != needles[index]]
            asked.append(ask_for_one(needles[index], wrong[:3]))
        return Draft("\n".join(lines), tuple(asked))


_MULTIKEY_1 = HiddenNeedles("multikey_1", EssayHaystack(), keys=4)
_MULTIKEY_2 = AmongNeedles("multikey_2", word_key, NUMBERS)
_MULTIKEY_3 = AmongNeedles("multikey_3", uuid4, UUIDS)


def multikey_1() -> FittedTask:
    """`niah_multikey_1`: four keys in an essay, one asked for."""
    return FittedTask("multikey_1", _MULTIKEY_1, ONE_ANSWER, share_of_answers)


def multikey_2() -> FittedTask:
    """`niah_multikey_2` with the official prompt."""
    return FittedTask("multikey_2", _MULTIKEY_2, ONE_ANSWER, share_of_answers)


def multikey_2_question_last() -> FittedTask:
    """`niah_multikey_2` without the announcement."""
    return FittedTask("multikey_2_question_last", _MULTIKEY_2, question_last(ONE_ANSWER), share_of_answers)


def multikey_3() -> FittedTask:
    """`niah_multikey_3` with the official prompt."""
    return FittedTask("multikey_3", _MULTIKEY_3, ONE_ANSWER, share_of_answers)


def multikey_3_question_last() -> FittedTask:
    """`niah_multikey_3` without the announcement."""
    return FittedTask("multikey_3_question_last", _MULTIKEY_3, question_last(ONE_ANSWER), share_of_answers)

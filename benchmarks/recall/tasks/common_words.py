"""RULER's common words extraction: the ten words of a numbered list that occur most often (arXiv 2404.06654).

Ten words occur 30 times each and all others 3 times, shuffled; below 4,096 tokens, 6 times and once. The score is the
share of the ten that the answer contains. No single place holds the answer, so the question names no evidence, and a
memory that recalls a few blocks is expected to be weak here: attention is flat over such a list. The official prompt
begins with a worked example (40 words, 10 times and 3 times; below 4,096 tokens 20 words, 3 times and once) and the
instruction; the question-last form has neither. One question a history. RULER draws from wonderwords, and from a
larger list when that runs out; here words are this benchmark's own, then adjective-noun pairs of them. No common word is part
of another one or of the question, so that the published judge cannot take one for the other.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from benchmarks.recall.tasks.fitted import Asked, Draft, FittedTask, Place, Wording
from benchmarks.recall.tasks.judges import share_of_answers
from benchmarks.recall.tasks.words import ADJECTIVES, NOUNS, unlike, word_key

COMMON = 10
LONG = 4_096
"""Tokens from which on words are repeated more often."""
_ANSWER_TOKENS = 120

_INSTRUCTION = (
    "Below is a numbered list of words. In these words, some appear more often than others. "
    "Memorize the ones that appear most often.\n"
)
_QUESTION = (
    "Question: What are the 10 most common words in the above list? Answer: The top 10 words that appear most often "
    "in the list are:"
)
_OFFICIAL = Wording(before="{example}\n" + _INSTRUCTION, after=_QUESTION, max_new_tokens=_ANSWER_TOKENS)
_QUESTION_LAST = Wording(before="", after=_QUESTION, max_new_tokens=_ANSWER_TOKENS)


@dataclass(frozen=True)
class Repeats:
    """How often the common words of a list occur, and the others."""

    common: int
    others: int


def numbered(words: Sequence[str]) -> str:
    """The words as RULER lists them: `1. word 2. word`."""
    return " ".join(f"{number}. {word}" for number, word in enumerate(words, start=1))


def listed(common: Sequence[str], others: Sequence[str], repeats: Repeats, chance: random.Random) -> str:
    """The numbered list of all occurrences, shuffled."""
    words = [*common] * repeats.common + [*others] * repeats.others
    chance.shuffle(words)
    return numbered(words)


@dataclass(frozen=True)
class CountedWords:
    """A shuffled list in which ten words stand out by their number."""

    name: str = "common_words"

    def draft(self, place: Place, units: int) -> Draft:
        """A list of the ten common words and `units` others."""
        common, others = _drawn(place.chance("words"), units)
        repeats = Repeats(30, 3) if place.tokens >= LONG else Repeats(6, 1)
        asked = Asked(slots={"example": self._example(place)}, answers=tuple(common), evidence=())
        return Draft(listed(common, others, repeats, place.chance("order")), (asked,))

    def _example(self, place: Place) -> str:
        """A worked example with words drawn for itself."""
        size, repeats = (40, Repeats(10, 3)) if place.tokens >= LONG else (20, Repeats(3, 1))
        common, others = _drawn(place.chance("example"), size - COMMON)
        context = listed(common, others, repeats, place.chance("example order"))
        return f"{_INSTRUCTION}{context}\n{_QUESTION} {numbered(common)}"


def common_words() -> FittedTask:
    """The official prompt with its worked example."""
    return FittedTask("common_words", CountedWords(), _OFFICIAL, share_of_answers)


def common_words_question_last() -> FittedTask:
    """The list alone, then the question."""
    return FittedTask("common_words_question_last", CountedWords(), _QUESTION_LAST, share_of_answers)


def _drawn(chance: random.Random, others: int) -> tuple[list[str], list[str]]:
    """Ten common words and so many others, none twice; more others begin with the same ones."""
    words = sorted({*ADJECTIVES, *NOUNS})
    chance.shuffle(words)
    common = list(islice(_telling(words), COMMON))
    rest = [word for word in words if word not in common]
    more = islice(unlike(chance, word_key), max(0, others - len(rest)))
    return common, [*rest[:others], *more]


def _telling(words: Sequence[str]) -> Iterator[str]:
    """The words that can be told from those before them, and from the question, by a substring judge."""
    told: list[str] = []
    for word in words:
        if word not in _QUESTION.lower() and all(word not in one and one not in word for one in told):
            told.append(word)
            yield word

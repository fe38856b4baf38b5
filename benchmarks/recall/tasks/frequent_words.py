"""RULER's frequent words extraction: the three commonest coded words of a long text (arXiv 2404.06654).

Words of six random letters whose counts follow a zeta law (alpha 2.0) by rank, shuffled; the first rank's word is
`...` and to be ignored, ranks two to four are asked for. The score is the share of the three that the answer
contains. No single place holds the answer, so the question names no evidence; a memory that recalls a few blocks is
expected to be weak here. The official prompt announces the task; the question-last form does not. One question a
history.
"""

from __future__ import annotations

import math
import random
import string
from dataclasses import dataclass
from itertools import islice

from benchmarks.recall.tasks.fitted import Asked, Draft, FittedTask, Place, Wording
from benchmarks.recall.tasks.judges import share_of_answers
from benchmarks.recall.tasks.lengths import TooShortError
from benchmarks.recall.tasks.words import unlike

ALPHA = 2.0
LETTERS = 6
TOKENS_A_WORD = 50
"""The vocabulary has one word for so many tokens of the length asked for."""
_DOTS = "..."
_ANSWER_TOKENS = 50

_QUESTION = (
    "Question: Do not provide any explanation. Please ignore the dots '....'. What are the three most frequently "
    "appeared words in the above coded text? Answer: According to the coded text above, the three most frequently "
    "appeared words are:"
)
_OFFICIAL = Wording(
    before=(
        "Read the following coded text and track the frequency of each coded word. "
        "Find the three most frequently appeared coded words. "
    ),
    after=_QUESTION,
    max_new_tokens=_ANSWER_TOKENS,
)
_QUESTION_LAST = Wording(before="", after=_QUESTION, max_new_tokens=_ANSWER_TOKENS)


def coded_word(chance: random.Random) -> str:
    """Six random small letters."""
    return "".join(chance.choices(string.ascii_lowercase, k=LETTERS))


def counts(words: int, vocabulary: int) -> list[int]:
    """How often each rank of the vocabulary occurs among about `words` words: words * rank^-2 / zeta(2), cut."""
    zeta = math.pi**2 / 6
    return [int(words * rank**-ALPHA / zeta) for rank in range(1, vocabulary + 1)]


@dataclass(frozen=True)
class CodedText:
    """A shuffled text of coded words."""

    name: str = "frequent_words"

    def draft(self, place: Place, units: int) -> Draft:
        """A text of about `units` words, dots among them."""
        size = (place.tokens - _ANSWER_TOKENS) // TOKENS_A_WORD
        if size < 5:
            raise TooShortError(
                f"{place.tokens} tokens allow {size} coded words, not 5: ask for a longer history"
            )
        often = counts(units, size)
        if not often[1] > often[2] > often[3] > often[4] > 0:
            raise TooShortError(f"{units} words have no three commonest: ask for a longer history")
        vocabulary = [_DOTS, *islice(unlike(place.chance("vocabulary"), coded_word), size - 1)]
        text = [word for word, times in zip(vocabulary, often, strict=True) for _ in range(times)]
        place.chance("order").shuffle(text)
        return Draft(" ".join(text), (Asked(slots={}, answers=tuple(vocabulary[1:4]), evidence=()),))


def frequent_words() -> FittedTask:
    """The official prompt."""
    return FittedTask("frequent_words", CodedText(), _OFFICIAL, share_of_answers)


def frequent_words_question_last() -> FittedTask:
    """Without the announcement."""
    return FittedTask("frequent_words_question_last", CodedText(), _QUESTION_LAST, share_of_answers)

"""InfiniteBench's number string: ten digits with repeats next to each other, hidden in noise (arXiv 2402.13718).

Five digits are drawn, then five times one of them is doubled on the spot. The official prompt (InfLLM's) announces
that something important is hidden; the question-last form does not. The first run of digits in the answer must be
the sequence. One question a history.
"""

from __future__ import annotations

import random

from benchmarks.recall.tasks.fitted import FittedTask, Wording
from benchmarks.recall.tasks.judges import first_digits
from benchmarks.recall.tasks.swept import SweptDigits

_QUESTION = "What is the sequence of digits?"
_OFFICIAL = Wording(
    before=(
        "There is an important info hidden inside a lot of irrelevant text. Find it. "
        "I will quiz you about the important information there.\n\n"
    ),
    after=_QUESTION,
    max_new_tokens=32,
)
_QUESTION_LAST = Wording(before="", after=_QUESTION, max_new_tokens=32)
_LINE = "The sequence of digits is {digits}. Remember it. {digits} is the sequence of digits."


def ten_digits(chance: random.Random) -> str:
    """Five independent digits, and five times a copy of one put next to it."""
    digits = [str(chance.randint(0, 9)) for _ in range(5)]
    for _ in range(5):
        where = chance.randrange(len(digits))
        digits.insert(where, digits[where])
    return "".join(digits)


_SOURCE = SweptDigits("number_string", _LINE, ten_digits)


def number_string() -> FittedTask:
    """The official prompt."""
    return FittedTask("number_string", _SOURCE, _OFFICIAL, first_digits)


def number_string_question_last() -> FittedTask:
    """Without the announcement."""
    return FittedTask("number_string_question_last", _SOURCE, _QUESTION_LAST, first_digits)

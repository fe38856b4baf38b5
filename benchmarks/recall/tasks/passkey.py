"""InfiniteBench's passkey: five digits hidden in repeated noise (arXiv 2402.13718; prompt as InfLLM's repository has it).

The official prompt announces that something important is hidden; the question-last form gives the text alone and
asks afterwards. The first run of digits in the answer must be the key. One question a history.
"""

from __future__ import annotations

import random

from benchmarks.recall.tasks.fitted import FittedTask, Wording
from benchmarks.recall.tasks.judges import first_digits
from benchmarks.recall.tasks.swept import SweptDigits

_QUESTION = "What is the pass key?"
_OFFICIAL = Wording(
    before=(
        "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
        "I will quiz you about the important information there.\n\n"
    ),
    after=_QUESTION,
    max_new_tokens=32,
)
_QUESTION_LAST = Wording(before="", after=_QUESTION, max_new_tokens=32)


def five_digits(chance: random.Random) -> str:
    """Five independent digits; the first may be 0."""
    return "".join(str(chance.randint(0, 9)) for _ in range(5))


_SOURCE = SweptDigits(
    "passkey", "The pass key is {digits}. Remember it. {digits} is the pass key.", five_digits
)


def passkey() -> FittedTask:
    """The official prompt."""
    return FittedTask("passkey", _SOURCE, _OFFICIAL, first_digits)


def passkey_question_last() -> FittedTask:
    """Without the announcement."""
    return FittedTask("passkey_question_last", _SOURCE, _QUESTION_LAST, first_digits)

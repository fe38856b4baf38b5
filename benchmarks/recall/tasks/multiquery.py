"""RULER's `niah_multiquery`: four keys, all four asked for in one question (arXiv 2404.06654).

In an essay of ours. The score is the share of the four values that the answer contains. One question a history.
"""

from __future__ import annotations

from benchmarks.recall.tasks.fitted import FittedTask
from benchmarks.recall.tasks.haystacks import EssayHaystack
from benchmarks.recall.tasks.judges import share_of_answers
from benchmarks.recall.tasks.niah import MANY_ANSWERS, HiddenNeedles, question_last

_FOUR_KEYS = HiddenNeedles("multiquery", EssayHaystack(), keys=4, queries=4)


def multiquery() -> FittedTask:
    """The official prompt."""
    return FittedTask("multiquery", _FOUR_KEYS, MANY_ANSWERS, share_of_answers)


def multiquery_question_last() -> FittedTask:
    """Without the announcement."""
    return FittedTask("multiquery_question_last", _FOUR_KEYS, question_last(MANY_ANSWERS), share_of_answers)

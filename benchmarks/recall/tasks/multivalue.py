"""RULER's `niah_multivalue`: one key, four values far apart, all asked for at once (arXiv 2404.06654).

In an essay of ours. The score is the share of the four values that the answer contains. One question a history.
"""

from __future__ import annotations

from benchmarks.recall.tasks.fitted import FittedTask
from benchmarks.recall.tasks.haystacks import EssayHaystack
from benchmarks.recall.tasks.judges import share_of_answers
from benchmarks.recall.tasks.niah import MANY_ANSWERS, HiddenNeedles, question_last

_FOUR_VALUES = HiddenNeedles("multivalue", EssayHaystack(), values=4)


def multivalue() -> FittedTask:
    """The official prompt."""
    return FittedTask("multivalue", _FOUR_VALUES, MANY_ANSWERS, share_of_answers)


def multivalue_question_last() -> FittedTask:
    """Without the announcement."""
    return FittedTask("multivalue_question_last", _FOUR_VALUES, question_last(MANY_ANSWERS), share_of_answers)

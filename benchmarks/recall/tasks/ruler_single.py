"""RULER's `niah_single_1` to `_3`: one needle in noise or in an essay, a number or a UUID (arXiv 2404.06654).

single_1: grass noise, `adjective-noun` key, 7-digit number. single_2: the same in an essay (ours). single_3: the
same with a UUID for a value. The official prompt announces what will be asked; the question-last form does not.
One question a history.
"""

from __future__ import annotations

from benchmarks.recall.tasks.fitted import FittedTask
from benchmarks.recall.tasks.haystacks import EssayHaystack, NoiseHaystack
from benchmarks.recall.tasks.judges import share_of_answers
from benchmarks.recall.tasks.niah import ONE_ANSWER, UUIDS, HiddenNeedles, question_last

_SINGLE_1 = HiddenNeedles("ruler_single", NoiseHaystack())
_SINGLE_2 = HiddenNeedles("ruler_single_2", EssayHaystack())
_SINGLE_3 = HiddenNeedles("ruler_single_3", EssayHaystack(), UUIDS)


def ruler_single() -> FittedTask:
    """`niah_single_1` with the official prompt."""
    return FittedTask("ruler_single", _SINGLE_1, ONE_ANSWER, share_of_answers)


def ruler_single_question_last() -> FittedTask:
    """`niah_single_1` without the announcement."""
    return FittedTask("ruler_single_question_last", _SINGLE_1, question_last(ONE_ANSWER), share_of_answers)


def ruler_single_2() -> FittedTask:
    """`niah_single_2`: a number in an essay."""
    return FittedTask("ruler_single_2", _SINGLE_2, ONE_ANSWER, share_of_answers)


def ruler_single_3() -> FittedTask:
    """`niah_single_3`: a UUID in an essay."""
    return FittedTask("ruler_single_3", _SINGLE_3, ONE_ANSWER, share_of_answers)

"""The tasks by name, each made by calling its entry. Data are drawn from seeds; nothing is downloaded.

Needles lie where the publications put them, at the very ends too: keeping them out of sinks and window is the
runner's business, which frames each history. To add a task, write a module with its publication in the docstring and add a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from benchmarks.recall.items import Task
from benchmarks.recall.multiday.task import MultiDay
from benchmarks.recall.tasks.common_words import common_words, common_words_question_last
from benchmarks.recall.tasks.fact_update import fact_consolidation, fact_update
from benchmarks.recall.tasks.frequent_words import frequent_words, frequent_words_question_last
from benchmarks.recall.tasks.kv_retrieval import kv_retrieval, kv_retrieval_question_last
from benchmarks.recall.tasks.many_needles import five_keys, many_needles
from benchmarks.recall.tasks.multikey import (
    multikey_1,
    multikey_2,
    multikey_2_question_last,
    multikey_3,
    multikey_3_question_last,
)
from benchmarks.recall.tasks.multiquery import multiquery, multiquery_question_last
from benchmarks.recall.tasks.multivalue import multivalue, multivalue_question_last
from benchmarks.recall.tasks.needle_grid import needle_grid
from benchmarks.recall.tasks.number_string import number_string, number_string_question_last
from benchmarks.recall.tasks.passkey import passkey, passkey_question_last
from benchmarks.recall.tasks.ruler_single import (
    ruler_single,
    ruler_single_2,
    ruler_single_3,
    ruler_single_question_last,
)
from benchmarks.recall.tasks.variable_tracking import variable_tracking, variable_tracking_question_last

TASKS: Mapping[str, Callable[[], Task]] = MappingProxyType(
    {
        "passkey": passkey,
        "passkey_question_last": passkey_question_last,
        "number_string": number_string,
        "number_string_question_last": number_string_question_last,
        "kv_retrieval": kv_retrieval,
        "kv_retrieval_question_last": kv_retrieval_question_last,
        "ruler_single": ruler_single,
        "ruler_single_question_last": ruler_single_question_last,
        "ruler_single_2": ruler_single_2,
        "ruler_single_3": ruler_single_3,
        "multikey_1": multikey_1,
        "multikey_2": multikey_2,
        "multikey_2_question_last": multikey_2_question_last,
        "multikey_3": multikey_3,
        "multikey_3_question_last": multikey_3_question_last,
        "multivalue": multivalue,
        "multivalue_question_last": multivalue_question_last,
        "multiquery": multiquery,
        "multiquery_question_last": multiquery_question_last,
        "variable_tracking": variable_tracking,
        "variable_tracking_question_last": variable_tracking_question_last,
        "common_words": common_words,
        "common_words_question_last": common_words_question_last,
        "frequent_words": frequent_words,
        "frequent_words_question_last": frequent_words_question_last,
        "needle_grid": needle_grid,
        "many_needles": many_needles,
        "five_keys": five_keys,
        "fact_update": fact_update,
        "fact_consolidation": fact_consolidation,
        "multiday": MultiDay,
    }
)
"""Name -> what makes the task."""

"""The judges, exactly as published, and nothing more lenient: each takes an output and says 0 to 1.

Knows nothing of prompts, tasks or models.
"""

from __future__ import annotations

import re
import string

from benchmarks.recall.items import Question

_KEY_VALUE_MARKS = "\n:\"'.,?!{}"
_DROPPED = str.maketrans("", "", string.punctuation)


def first_digits(question: Question, output: str) -> float:
    """1 if the first run of digits in the output is the answer (InfiniteBench: passkey, number string)."""
    found = re.search(r"[0-9]+", output)
    return float(found is not None and found.group() == question.answers[0])


def key_value_word(question: Question, output: str) -> float:
    """1 if the answer is one of the output's words, once marks are spaces (InfiniteBench: KV retrieval)."""
    words = output.translate(str.maketrans(_KEY_VALUE_MARKS, " " * len(_KEY_VALUE_MARKS))).split()
    return float(question.answers[0] in words)


def share_of_answers(question: Question, output: str) -> float:
    """The share of the answers that the output contains, in any case of letters (RULER: `string_match_all`).

    As in RULER's evaluation, control characters count as line ends and outer white space is dropped first.
    """
    said = re.sub(r"[\x00-\x1f]", "\n", output.strip()).strip().lower()
    return sum(answer.lower() in said for answer in question.answers) / len(question.answers)


def contains_answer(question: Question, output: str) -> float:
    """1 if any answer stands in the output once both are normalised (`substring_exact_match`).

    Normalised as MemoryAgentBench (arXiv 2507.05257) and SQuAD do: small letters, no punctuation, no articles,
    single spaces.
    """
    said = normalised(output)
    return float(any(normalised(answer) in said for answer in question.answers))


def normalised(text: str) -> str:
    """Small letters without punctuation and articles, single spaces."""
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_DROPPED)).split())

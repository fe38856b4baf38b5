"""What holds of every task: its length, its seeds, its evidence, its judge."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from itertools import pairwise

import pytest

from benchmarks.recall.items import History
from benchmarks.recall.tasks import TASKS
from benchmarks.recall.tasks.common_words import common_words
from benchmarks.recall.tasks.fitted import FittedTask
from benchmarks.recall.tasks.frequent_words import frequent_words
from benchmarks.recall.tasks.lengths import TooShortError

TOKENS = 4_096
FITTED = [name for name, make in TASKS.items() if isinstance(make(), FittedTask)]
NO_PLACE = {"common_words", "common_words_question_last", "frequent_words", "frequent_words_question_last"}
"""Tasks whose answer stands in no single place."""


def count_tokens(text: str) -> int:
    """A stand-in for a tokenizer: short runs of letters, single digits, marks."""
    return len(re.findall(r"[A-Za-z]{1,5}|[0-9]|[^\sA-Za-z0-9]", text))


@cache
def drawn(name: str, tokens: int = TOKENS, count: int = 3, seed: int = 11) -> tuple[History, ...]:
    """Histories of a task, made once."""
    return tuple(TASKS[name]().histories(tokens, count, seed, count_tokens))


def test_every_published_task_has_its_question_last_form() -> None:
    """The names of the issue are all there, and where something precedes the context so is the other form."""
    published = {
        *("passkey", "number_string", "kv_retrieval", "ruler_single", "multikey_2", "multikey_3"),
        *("multivalue", "multiquery", "variable_tracking", "common_words", "frequent_words"),
    }

    assert published | {f"{name}_question_last" for name in published} <= set(TASKS)
    assert {"needle_grid", "many_needles", "fact_update"} <= set(TASKS)


@pytest.mark.parametrize("name", FITTED)
def test_a_task_is_named_as_it_is_called(name: str) -> None:
    """The registry's name is the task's, and every history and question carries it or its kind."""
    assert TASKS[name]().name == name
    for history in drawn(name):
        assert history.task == name
        assert history.id.startswith(f"{name}-{TOKENS}-11-")
        assert [question.id for question in history.questions] == [
            f"{history.id}-q{number}" for number in range(len(history.questions))
        ]


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize("tokens", [TOKENS, 12_000])
def test_the_token_budget_is_kept(name: str, tokens: int) -> None:
    """Piece, longest question and answer fill the length asked for: never above, at most 2 % below."""
    for history in drawn(name, tokens):
        (piece,) = history.pieces
        longest = max(count_tokens(question.prompt) for question in history.questions)
        size = count_tokens(piece.text) + longest + history.questions[0].max_new_tokens
        assert history.tokens == tokens
        assert 0.98 * tokens <= size <= tokens


@pytest.mark.parametrize("name", FITTED)
def test_every_evidence_snippet_occurs_exactly_once(name: str) -> None:
    """Each question names its evidence, each snippet stands in the piece once and holds an answer or part of it."""
    for history in drawn(name):
        for question in history.questions:
            assert bool(question.evidence) != (name in NO_PLACE)
            assert len(set(question.evidence)) == len(question.evidence)
            for snippet in question.evidence:
                assert history.pieces[0].text.count(snippet) == 1
                assert any(answer in snippet for answer in question.answers)
            for answer in question.answers if question.evidence else ():
                assert any(answer in snippet for snippet in question.evidence)


@pytest.mark.parametrize("name", FITTED)
def test_a_seed_fixes_everything(name: str) -> None:
    """Drawn again the histories are the same; another seed, length or index gives others."""
    first, second, third = drawn(name)
    again = tuple(TASKS[name]().histories(TOKENS, 3, 11, count_tokens))
    other_seed = drawn(name, seed=12)

    assert again == (first, second, third)
    texts = [history.pieces[0].text for history in (first, second, third, *other_seed)]
    assert len(set(texts)) == 6


@pytest.mark.parametrize("name", FITTED)
def test_questions_differ_and_are_about_the_piece(name: str) -> None:
    """No question of a history is asked twice; answers are not given away; wrong choices are wrong and distinct."""
    task = TASKS[name]()
    for history in drawn(name):
        prompts = [question.prompt for question in history.questions]
        assert len(set(prompts)) == len(prompts)
        for question in history.questions:
            assert question.answers and all(answer not in question.prompt for answer in question.answers)
            assert len(set(question.choices)) == len(question.choices)
            for wrong in (*question.choices[1:], *question.must_not):
                assert task.judge(question, wrong) == 0.0


@pytest.mark.parametrize("name", FITTED)
def test_the_judge_tells_right_from_wrong(name: str) -> None:
    """All answers in one sentence score 1, silence 0, and the right choice of a ranking 1."""
    task = TASKS[name]()
    for history in drawn(name):
        for question in history.questions:
            assert task.judge(question, ", ".join(question.answers)) == 1.0
            assert task.judge(question, "") == 0.0
            assert task.judge(question, "I do not know.") == 0.0
            if question.choices:
                assert task.judge(question, question.choices[0]) == 1.0
            if len(question.answers) > 1:
                half = question.answers[: len(question.answers) // 2]
                assert task.judge(question, " ".join(half)) == len(half) / len(question.answers)


@pytest.mark.parametrize("name", FITTED)
def test_too_few_tokens_are_refused(name: str) -> None:
    """A length that cannot hold the needles is an error that says what to do, not a history without them."""
    with pytest.raises(TooShortError, match="ask for a longer history"):
        next(TASKS[name]().histories(60, 1, 1, count_tokens))


@pytest.mark.parametrize("name", FITTED)
def test_two_thousand_tokens_are_enough(name: str) -> None:
    """What a frame leaves of a history of 4,000 tokens holds every task, with questions and within its length."""
    for history in drawn(name, 2_000):
        size = count_tokens(history.pieces[0].text)
        assert history.questions
        assert 1_500 < size <= 2_000


@pytest.mark.parametrize("name", [name for name in FITTED if name.endswith("_question_last")])
def test_question_last_announces_nothing(name: str) -> None:
    """The piece is the context alone and about the same secrets; the official piece says something first."""
    official = drawn(name.removesuffix("_question_last"))
    for asked, told in zip(drawn(name), official, strict=True):
        assert told.pieces[0].text[:40] != asked.pieces[0].text[:40]
        assert asked.pieces[0].text[:40] in told.pieces[0].text or name in NO_PLACE
        assert told.questions[0].prompt in asked.questions[0].prompt or len(asked.questions) > 1


@pytest.mark.parametrize("name", ["passkey", "number_string", "kv_retrieval", "needle_grid"])
def test_swept_needles_move_from_front_to_back(name: str) -> None:
    """Over ten histories the needle goes deeper each time, from the front to the back."""
    depths = []
    for history in drawn(name, count=10):
        (snippet,) = history.questions[0].evidence
        before = history.pieces[0].text.split(snippet)[0]
        depths.append(count_tokens(before))

    assert all(later > earlier for earlier, later in pairwise(depths))
    assert depths[0] < 60
    assert depths[-1] > 0.8 * TOKENS


@pytest.mark.parametrize("name", ["many_needles", "multikey_2", "kv_retrieval_question_last", "fact_update"])
def test_many_questions_one_history(name: str) -> None:
    """25 questions are asked of one history, about places from its front to its back."""
    for history in drawn(name):
        text = history.pieces[0].text
        places = sorted(text.index(question.evidence[0]) / len(text) for question in history.questions)
        assert len(places) == 25
        assert places[0] < 0.25 and places[-1] > 0.75


@pytest.mark.parametrize(
    ("tokens", "often", "seldom"), [(TOKENS, 30, 3), (TOKENS - 1, 6, 1), (24_000, 30, 3)]
)
def test_common_words_asks_for_the_ten_commonest(tokens: int, often: int, seldom: int) -> None:
    """Counted in the numbered list itself; no common word is part of another, so the judge tells them apart."""
    for history in common_words().histories(tokens, 2, 5, count_tokens):
        numbers, words = zip(
            *re.findall(r"(\d+)\. (\S+)", history.pieces[0].text.split("most often.\n")[-1]), strict=True
        )
        counts = Counter(words)
        answers = history.questions[0].answers
        assert [int(number) for number in numbers] == list(range(1, len(words) + 1))
        assert {word for word, count in counts.items() if count == often} == set(answers)
        assert set(counts.values()) == {often, seldom} and len(answers) == 10
        assert not [(a, b) for a in answers for b in answers if a != b and a in b]


def test_frequent_words_asks_for_the_three_commonest() -> None:
    """Counted in the text itself, the answers are ranks two to four behind the dots."""
    for history in frequent_words().histories(TOKENS, 3, 5, count_tokens):
        words = history.pieces[0].text.split("coded words. ")[1].split()
        ranked = sorted(set(words), key=lambda word: -words.count(word))
        assert ranked[0] == "..."
        assert tuple(ranked[1:4]) == history.questions[0].answers
        counts = [words.count(word) for word in ranked]
        assert counts[3] > counts[4]
        assert 3.5 < counts[0] / counts[1] < 4.5  # zeta law, alpha 2

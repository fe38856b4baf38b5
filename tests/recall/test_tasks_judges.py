"""The judges against the published scripts' rules, stated anew here in their slow form."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.recall.items import Question
from benchmarks.recall.tasks.judges import contains_answer, first_digits, key_value_word, share_of_answers

OUTPUTS = st.text(st.sampled_from("ab1239 .,:'\"{}\n\t!?-A"), max_size=40)
ANSWERS = st.lists(st.text(st.sampled_from("ab1239-A"), min_size=1, max_size=4), min_size=1, max_size=4)


def question(*answers: str) -> Question:
    """A question with these answers."""
    return Question("q", "kind", "prompt", answers, ())


@pytest.mark.parametrize(
    ("output", "right"),
    [
        ("The pass key is 01234.", 1.0),
        ("01234", 1.0),
        ("It is 1234.", 0.0),
        ("First 5, then 01234", 0.0),
        ("012345", 0.0),
        ("0123 4", 0.0),
        ("none", 0.0),
        ("", 0.0),
    ],
)
def test_first_digits_takes_the_first_run_only(output: str, right: float) -> None:
    """The first run of digits must equal the key, leading zeros and all."""
    assert first_digits(question("01234"), output) == right


@given(OUTPUTS, ANSWERS)
def test_first_digits_is_infinitebenchs_first_int_match(output: str, answers: list[str]) -> None:
    """Equal to splitting at everything that is no digit and taking the first piece that is not empty."""
    first = next((piece for piece in re.split("[^0-9]", output) if piece != ""), "")

    assert first_digits(question(*answers), output) == float(answers[0] == first)


@given(OUTPUTS, ANSWERS)
def test_key_value_word_is_infinitebenchs_rule(output: str, answers: list[str]) -> None:
    """Equal to replacing ten marks by spaces one after another and looking for the word."""
    said = output
    for mark in ["\n", ":", '"', "'", ".", ",", "?", "!", "{", "}"]:
        said = said.replace(mark, " ")

    assert key_value_word(question(*answers), output) == float(answers[0] in said.split())


@given(OUTPUTS, ANSWERS)
def test_share_of_answers_is_rulers_string_match_all(output: str, answers: list[str]) -> None:
    """Equal to the mean over references of a substring test in small letters."""
    hits = [1.0 if answer.lower() in output.lower() else 0.0 for answer in answers]

    assert share_of_answers(question(*answers), output) == pytest.approx(sum(hits) / len(hits))


@given(OUTPUTS, ANSWERS)
def test_contains_answer_is_substring_exact_match(output: str, answers: list[str]) -> None:
    """Equal to normalising both sides step by step and looking for any answer."""

    def normal(text: str) -> str:
        text = "".join(letter for letter in text.lower() if letter not in string.punctuation)
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())

    assert contains_answer(question(*answers), output) == float(
        any(normal(answer) in normal(output) for answer in answers)
    )


def test_judges_on_typical_answers() -> None:
    """A sentence with the value passes, another value does not, several values score their share."""
    assert key_value_word(question("3ab-1"), 'The value is "3ab-1".') == 1.0
    assert key_value_word(question("3ab-1"), "3ab-12") == 0.0
    assert share_of_answers(question("1234567", "7654321"), "They are 1234567 and 1111111.") == 0.5
    assert contains_answer(question("the Orchid Society"), "Orchid Society.") == 1.0
    assert contains_answer(question("Danish"), "She speaks Greek.") == 0.0

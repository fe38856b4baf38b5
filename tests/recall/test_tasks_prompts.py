"""The published prompts, letter by letter, and what the contexts between them say."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from benchmarks.recall.items import History
from benchmarks.recall.tasks import TASKS
from benchmarks.recall.tasks.facts import RELATIONS
from benchmarks.recall.tasks.haystacks import NOISE
from benchmarks.recall.tasks.needle_grid import FactAtDepth

TOKENS = 4_096
NEEDLE = re.compile(r"One of the special magic (\w+)s for (\S+) is: (\S+)\.")


def count_tokens(text: str) -> int:
    """A stand-in for a tokenizer: short runs of letters, single digits, marks."""
    return len(re.findall(r"[A-Za-z]{1,5}|[0-9]|[^\sA-Za-z0-9]", text))


def drawn(name: str, count: int = 2) -> list[History]:
    """Some histories of a task."""
    return list(TASKS[name]().histories(TOKENS, count, 3, count_tokens))


@pytest.mark.parametrize(
    ("name", "before", "question", "needle"),
    [
        (
            "passkey",
            (
                "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
                "I will quiz you about the important information there.\n\n"
            ),
            "What is the pass key?",
            "The pass key is {0}. Remember it. {0} is the pass key.",
        ),
        (
            "number_string",
            (
                "There is an important info hidden inside a lot of irrelevant text. Find it. "
                "I will quiz you about the important information there.\n\n"
            ),
            "What is the sequence of digits?",
            "The sequence of digits is {0}. Remember it. {0} is the sequence of digits.",
        ),
    ],
)
def test_infinitebench_digits(name: str, before: str, question: str, needle: str) -> None:
    """The announcement, noise lines around one needle line, the question; 32 new tokens."""
    for history in drawn(name):
        (asked,) = history.questions
        lines = history.pieces[0].text.removeprefix(before).split("\n")
        assert history.pieces[0].text.startswith(before)
        assert set(lines) == {NOISE, needle.format(asked.answers[0])}
        assert lines.count(NOISE) == len(lines) - 1
        assert (asked.prompt, asked.max_new_tokens) == (question, 32)


def test_kv_retrieval_names_the_key_first() -> None:
    """InfLLM's prompt has the wanted key before the JSON and after it; the value stands in the JSON; 100 tokens."""
    for history in drawn("kv_retrieval"):
        (asked,) = history.questions
        text, _, data = history.pieces[0].text.partition("\n\nJSON data:\n")
        pairs = json.loads(data)
        key = next(key for key, value in pairs.items() if value == asked.answers[0])
        assert (
            text == f'Extract the value corresponding to the specified key "{key}" in the JSON object below.'
        )
        assert asked.prompt == f'Key: "{key}"\nThe value associated with the specified key is: '
        assert asked.max_new_tokens == 100
        assert data.startswith('{"' + next(iter(pairs)) + '": "')


def test_kv_retrieval_question_last_asks_after_the_object() -> None:
    """The piece is the JSON alone, and each question carries the whole instruction with its key."""
    (history, *_) = drawn("kv_retrieval_question_last")
    pairs = json.loads(history.pieces[0].text.removeprefix("JSON data:\n"))

    assert len({*pairs, *pairs.values()}) == 2 * len(pairs)
    for asked in history.questions:
        instruction, _, rest = asked.prompt.partition("\n\n")
        key = re.findall('"(.+)"', rest)[0]
        assert instruction == "Extract the value corresponding to the specified key in the JSON object above."
        assert (pairs[key],) == asked.answers


@pytest.mark.parametrize(
    ("name", "kind", "needles"),
    [
        ("ruler_single", "number", 1),
        ("ruler_single_2", "number", 1),
        ("ruler_single_3", "uuid", 1),
        ("multikey_1", "number", 4),
        ("multikey_2", "number", None),
        ("multikey_3", "uuid", None),
    ],
)
def test_ruler_with_one_answer(name: str, kind: str, needles: int | None) -> None:
    """RULER's prompt in its singular grammar, the needles as published, no key or value twice; 128 tokens."""
    for history in drawn(name):
        text = history.pieces[0].text
        found = NEEDLE.findall(text)
        assert text.startswith(
            f"A special magic {kind} is hidden within the following text. Make sure to memorize it. "
            f"I will quiz you about the {kind} afterwards.\n"
        )
        assert len(found) == needles if needles else len(found) == len(text.split("\n")) - 1
        assert {one[0] for one in found} == {kind}
        assert len({one[1] for one in found}) == len({one[2] for one in found}) == len(found)
        for asked in history.questions:
            (key,) = [key for _, key, value in found if (value,) == asked.answers]
            assert asked.max_new_tokens == 128
            assert asked.prompt == (
                f"What is the special magic {kind} for {key} mentioned in the provided text? "
                f"The special magic {kind} for {key} mentioned in the provided text is"
            )


@pytest.mark.parametrize(("name", "keys"), [("multivalue", 1), ("multiquery", 4)])
def test_ruler_with_four_answers(name: str, keys: int) -> None:
    """RULER's prompt in its plural grammar; four needles, all of them asked for at once."""
    for history in drawn(name):
        (asked,) = history.questions
        found = NEEDLE.findall(history.pieces[0].text)
        names = list(dict.fromkeys(re.findall(r"[a-z]+-[a-z]+", asked.prompt)))
        query = ", ".join(names[:-1]) + ", and " + names[-1] if keys > 1 else names[0]
        assert history.pieces[0].text.startswith(
            "Some special magic numbers are hidden within the following text. Make sure to memorize it. "
            "I will quiz you about the numbers afterwards.\n"
        )
        assert len(found) == len(asked.answers) == 4
        assert {one[1] for one in found} == set(names) and len(names) == keys
        assert {one[2] for one in found} == set(asked.answers)
        assert asked.prompt == (
            f"What are all the special magic numbers for {query} mentioned in the provided text? "
            f"The special magic numbers for {query} mentioned in the provided text are"
        )


def test_variable_tracking_can_be_solved_by_following_the_chain() -> None:
    """From the text alone the chain leads to the answers; an example with its own chain and answer precedes."""
    for history in drawn("variable_tracking"):
        (asked,) = history.questions
        example, instruction, text = history.pieces[0].text.rpartition("Memorize and track the chain(s)")
        value = re.findall(r"assigned the value (\d+) in", asked.prompt)[0]
        holders: list[str] = []
        for name, source in re.findall(r"^VAR ([A-Z]{5}) = (?:VAR )?(\w+) ?$", text, re.MULTILINE):
            holders += [name] if source in {value, *holders} else []
        assert tuple(holders) == asked.answers and len(holders) == 5
        assert instruction and value not in example
        shown = re.findall(r"^VAR ([A-Z]{3}) =", example, re.MULTILINE)
        assert example.endswith(f"they are:  {' '.join(shown)}\n\n") and len(shown) == 5
        assert 300 <= count_tokens(example) <= 500
        assert asked.prompt == (
            f"Question: Find all variables that are assigned the value {value} in the text above. Answer: According "
            f"to the chain(s) of variable assignment in the text above, 5 variables are assigned the value {value}, "
            "they are: "
        )


@pytest.mark.parametrize(
    ("tokens", "words", "often", "seldom"), [(TOKENS, 40, 10, 3), (TOKENS - 1, 20, 3, 1)]
)
def test_common_words_prompt(tokens: int, words: int, often: int, seldom: int) -> None:
    """RULER's worked example in its own template, the instruction, the numbered list, the question; 120 tokens."""
    instruction = (
        "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones "
        "that appear most often.\n"
    )
    question = (
        "Question: What are the 10 most common words in the above list? Answer: The top 10 words that appear most "
        "often in the list are:"
    )
    for history in TASKS["common_words"]().histories(tokens, 2, 3, count_tokens):
        (asked,) = history.questions
        nothing, example, told = history.pieces[0].text.split(instruction)
        shown, answer = example.split(f"\n{question} ")
        counts = Counter(re.findall(r"\d+\. (\S+)", shown))
        ten = [f"{number}. {word}" for number, (word, _) in enumerate(counts.most_common(10), start=1)]
        assert nothing == "" and re.fullmatch(r"1\. \S+( \d+\. \S+)*", told)
        assert sorted(counts.values()) == [seldom] * (words - 10) + [often] * 10
        assert sorted(re.findall("[a-z-]+", answer)) == sorted(one.split()[1] for one in ten)
        assert re.fullmatch(r"1\. \S+( \d+\. \S+)* 10\. \S+\n", answer)
        assert (asked.prompt, asked.max_new_tokens) == (question, 120)


def test_frequent_words_prompt() -> None:
    """RULER's instruction before the coded text and its question after it; 50 tokens."""
    (history, *_) = drawn("frequent_words")
    (asked,) = history.questions

    assert re.fullmatch(
        r"Read the following coded text and track the frequency of each coded word\. Find the three most "
        r"frequently appeared coded words\. ([a-z]{6}|\.\.\.)( ([a-z]{6}|\.\.\.))*",
        history.pieces[0].text,
    )
    assert asked.max_new_tokens == 50
    assert asked.prompt == (
        "Question: Do not provide any explanation. Please ignore the dots '....'. What are the three most frequently "
        "appeared words in the above coded text? Answer: According to the coded text above, the three most "
        "frequently appeared words are:"
    )


@pytest.mark.parametrize(("name", "needles"), [("many_needles", 25), ("five_keys", 5)])
def test_many_needles_are_spread_one_to_a_slice(name: str, needles: int) -> None:
    """Every needle is asked for once; each lies in its own slice of the lines, noise everywhere else."""
    for history in drawn(name):
        lines = history.pieces[0].text.split("\n")
        places = [index for index, line in enumerate(lines) if line != NOISE]
        noise = len(lines) - needles
        slices = [(place - before) * needles // noise for before, place in enumerate(places)]
        assert len(places) == len(history.questions) == needles
        assert all(abs(found - wanted) <= 1 for wanted, found in enumerate(slices))
        assert sorted(one.evidence[0] for one in history.questions) == sorted(
            lines[index] for index in places
        )


@pytest.mark.parametrize(
    ("name", "before", "tokens"),
    [
        ("fact_consolidation", "The following context is the facts I have learned: \n", 10),
        ("fact_update", "These are numbered facts.", 32),
    ],
)
def test_facts_are_answered_by_the_newest(name: str, before: str, tokens: int) -> None:
    """Read from the list alone, the largest serial number gives the answer and the smaller ones `must_not`."""
    for history in drawn(name):
        facts = history.pieces[0].text.partition("\n")[2]
        assert history.pieces[0].text.startswith(before)
        serials = [line.split(". ", 1) for line in facts.split("\n")]
        assert [int(serial) for serial, _ in serials] == list(range(len(serials)))
        kinds = [asked.kind for asked in history.questions]
        assert (kinds.count("updated"), kinds.count("stated once")) == (20, 5)
        for asked in history.questions:
            said = [_value_said(fact, asked.prompt) for _, fact in serials]
            values = [value for value in said if value is not None]
            assert (values[-1],) == asked.answers
            assert tuple(values[:-1]) == asked.must_not
            assert asked.evidence[0].startswith(f"{len(said) - 1 - said[::-1].index(values[-1])}. ")
            assert asked.max_new_tokens == tokens
            assert set(asked.must_not) <= set(asked.choices) and len(asked.choices) == 4


def _value_said(fact: str, prompt: str) -> str | None:
    """The value that a fact gives to the question of the prompt, if it is about the same thing."""
    question = re.split("Based on the provided Knowledge Pool, |According to the newest facts, ", prompt)[-1]
    question = question.removesuffix(" \nAnswer:")
    for relation in RELATIONS:
        pattern = relation.statement.replace(".", r"\.").format(who="(?P<who>.+)", value="(?P<value>.+)")
        found = re.fullmatch(pattern, fact)
        if found and relation.asked(found["who"]) == question:
            return found["value"]
    return None


def test_needle_grid_cells_are_labelled() -> None:
    """With fewer histories than depths the ends are still covered; the kind says the depth; further ones repeat."""
    kinds = [history.questions[0].kind for history in drawn("needle_grid", 3)]
    assert kinds == ["depth 000%", "depth 050%", "depth 100%"]

    kinds = [history.questions[0].kind for history in drawn("needle_grid", 12)]
    assert kinds[:10] == [f"depth {round(100 * level / 9):03d}%" for level in range(10)]
    assert kinds[10:] == kinds[:2]
    assert FactAtDepth().depths == 10

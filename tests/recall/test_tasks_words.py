"""What needles and essays are made of: word lists, drawn keys and values, prose."""

from __future__ import annotations

import random
import re
import uuid
from itertools import islice

import pytest

from benchmarks.recall.tasks.facts import RELATIONS, subject
from benchmarks.recall.tasks.number_string import ten_digits
from benchmarks.recall.tasks.passkey import five_digits
from benchmarks.recall.tasks.prose import sentences
from benchmarks.recall.tasks.words import ADJECTIVES, NOUNS, seven_digits, unlike, uuid4, word_key


def test_word_lists_give_keys_enough_for_a_million_tokens() -> None:
    """Each list has over 200 different plain words, and their pairs outnumber the lines of a 1M-token haystack."""
    for words in (ADJECTIVES, NOUNS):
        assert len(words) == len(set(words)) >= 200
        assert all(re.fullmatch(r"[a-z]+", word) for word in words)
    assert len(ADJECTIVES) * len(NOUNS) > 100_000


def test_drawn_keys_and_values_have_the_published_form() -> None:
    """Keys are adjective-noun; values are 7-digit numbers, version 4 UUIDs, 5 digits, 10 digits with repeats."""
    chance = random.Random(1)
    for _ in range(200):
        adjective, noun = word_key(chance).split("-")
        assert adjective in ADJECTIVES and noun in NOUNS
        assert 1_000_000 <= int(seven_digits(chance)) <= 9_999_999
        assert uuid.UUID(uuid4(chance)).version == 4
        assert re.fullmatch(r"[0-9]{5}", five_digits(chance))


def test_number_strings_hold_repeats_next_to_each_other() -> None:
    """Five doublings leave ten digits in at most five runs."""
    chance = random.Random(2)
    drawn = [ten_digits(chance) for _ in range(200)]

    assert {len(digits) for digits in drawn} == {10}
    assert max(len(re.findall(r"(\d)\1*", digits)) for digits in drawn) <= 5


def test_unlike_never_repeats_and_fewer_are_the_first_of_more() -> None:
    """From a small pool every value comes once; a shorter run is the start of a longer one."""
    draw = lambda chance: chance.randrange(50)

    whole = list(islice(unlike(random.Random(3), draw), 50))

    assert sorted(whole) == list(range(50))
    assert list(islice(unlike(random.Random(3), draw), 20)) == whole[:20]
    with pytest.raises(ValueError, match="all 50 different values are drawn"):
        list(islice(unlike(random.Random(3), draw), 51))


def test_prose_cannot_be_taken_for_a_needle() -> None:
    """Essays hold no digits, no hyphenated keys, no magic, no best thing; sentences are closed and rarely repeat."""
    lines = list(islice(sentences(random.Random(4)), 3_000))
    text = " ".join(lines)

    assert not re.search(r"[0-9{}]|\w-\w|magic|best thing", text)
    assert all(re.fullmatch(r"[A-Z].*\.", line) for line in lines)
    assert len(set(lines)) > 2_000
    assert not re.search(r"\ba [aeiou]|\ban [^aeiouh]", text)


def test_values_of_a_relation_are_told_apart_by_a_substring_judge() -> None:
    """No value of a relation contains another one, and each fits its own statement and question once."""
    for relation in RELATIONS:
        values = [value.lower() for value in relation.values]
        assert len(values) == 16
        assert [(a, b) for a in values for b in values if a != b and a in b] == []
        assert relation.stated("Una Velmere", "amber").count("Una Velmere") == 1
        assert relation.asked("Una Velmere").endswith("?")


def test_there_are_facts_enough_for_a_million_tokens() -> None:
    """A hundred thousand different person-relation pairs are drawn without running dry."""
    assert len(set(islice(unlike(random.Random(5), subject), 100_000))) == 100_000

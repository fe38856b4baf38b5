"""The checks themselves: a fair diary passes, and each way of spoiling it is found."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import cache

import pytest

from benchmarks.recall.multiday.diary import Diary, Message, Query, Session, known
from benchmarks.recall.multiday.generator import diary
from benchmarks.recall.multiday.storylines import ABSTENTION, FORGET, MULTI, TEMPORAL, UPDATE, USER
from benchmarks.recall.multiday.validity import problems


def count_words(text: str) -> int:
    """Four tokens for three words."""
    return len(text.split()) * 4 // 3


@cache
def fair(persona: int = 2, tokens: int = 32_000) -> Diary:
    """A diary that the generator let pass."""
    return diary(persona, tokens=tokens, seed=8, count_tokens=count_words)


def first(kind: str) -> Query:
    """A question of a kind."""
    return next(query for query in fair().queries if query.question.kind == kind)


def altered(change: Callable[[Message], Message | None]) -> Diary:
    """The diary with each message as `change` gives it; None drops it."""
    sessions = tuple(
        replace(session, messages=tuple(found for m in session.messages if (found := change(m)) is not None))
        for session in fair().sessions
    )
    return replace(fair(), sessions=sessions)


def spoken(text: str) -> Diary:
    """The diary with `text` said in the midst of neutral talk."""
    victim = next(message for _, message in fair().messages() if message.storyline is None)
    return altered(lambda m: replace(m, text=f"{m.text} {text}") if m is victim else m)


@pytest.mark.parametrize("tokens", [2_000, 8_000, 32_000])
@pytest.mark.parametrize("persona", range(12))
def test_what_is_generated_is_fair(persona: int, tokens: int) -> None:
    """No diary that leaves the generator has a problem."""
    assert problems(fair(persona, tokens)) == []


def test_it_is_unfair_to_ask_what_no_longer_follows() -> None:
    """A message of evidence lost: the rule no longer gives the answer."""
    for kind in (USER, MULTI, TEMPORAL, UPDATE, FORGET):
        query = first(kind)
        victim = next(m for _, m in fair().messages() if m.storyline == query.storyline and m.answers)
        found = problems(altered(lambda m, victim=victim: None if m is victim else m))
        assert any(query.question.id in line and "the rule gives" in line for line in found), kind


def test_it_is_unfair_to_tell_the_evidence_twice() -> None:
    """A second message with the same fact: the question is still answered without the first."""
    query = first(USER)
    told = next(m for _, m in fair().messages() if m.storyline == query.storyline and m.answers)
    extra = Session("extra", fair().asked_at - timedelta(hours=1), (told,))
    found = problems(replace(fair(), sessions=(*fair().sessions, extra)))

    other = replace(told, text=f"Again: {told.text}", answers=False)
    retold = replace(extra, messages=(other,))
    again = problems(replace(fair(), sessions=(*fair().sessions, retold)))

    assert any("still answered without" in line for line in again)
    assert any("2 times" in line for line in found)


@pytest.mark.parametrize("kind", [USER, UPDATE, FORGET])
def test_it_is_unfair_to_give_the_answer_away(kind: str) -> None:
    """The answer, by any of its names and in any case, in a message about something else."""
    query = first(kind)
    for name in query.question.answers:
        found = problems(spoken(f"It was {name.upper()}, I think."))
        assert any(query.question.id in line and "stands in another message" in line for line in found), name


def test_it_is_unfair_to_name_a_sum_or_a_distance() -> None:
    """ "17 days" in other talk gives away a distance, in figures and in words."""
    query = next(q for q in fair().queries if re.fullmatch(r"\d+ days", q.question.answers[-1]))

    assert any(query.question.id in line for line in problems(spoken(f"That took {query.gold} days.")))


def test_it_is_unfair_to_touch_the_matter_elsewhere() -> None:
    """A cue of the question in other talk; for an abstention also the matter that is asked about instead."""
    query = first(ABSTENTION)
    for phrase in (*query.cues, *query.absent):
        assert any(query.question.id in line for line in problems(spoken(f"About the {phrase}: no.")))


def test_it_is_unfair_to_answer_what_was_never_told() -> None:
    """A fact about an abstention's subject makes it answerable."""
    query = first(ABSTENTION)
    told = next(m for _, m in fair().messages() if m.storyline == query.storyline and m.facts)
    fact = replace(told.facts[0], subject=query.rule.subject)  # type: ignore[attr-defined]
    found = problems(altered(lambda m: replace(m, facts=(fact,)) if m is told else m))

    assert any(query.question.id in line and "not None" in line for line in found)


def test_what_the_memory_forgets_is_no_longer_known() -> None:
    """Messages marked for `forget` count as told only where one asks what they said."""
    messages = list(fair(3).messages())
    marked = [message for _, message in messages if message.source]

    assert marked
    for message in marked:
        assert message.facts[0] not in [dated.fact for dated in known(messages)]
        assert message.facts[0] in [dated.fact for dated in known(messages, forgets=False)]

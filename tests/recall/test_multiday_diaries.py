"""Diaries: as long as asked for, always the same, shaped like chats, their answers read back from the text alone."""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime, timedelta
from functools import cache

import pytest

from benchmarks.recall.items import History
from benchmarks.recall.multiday.cast import QUESTIONS, numbered, parts_of
from benchmarks.recall.multiday.diary import Diary, Query
from benchmarks.recall.multiday.generator import TAIL_TOKENS, days_of, diary
from benchmarks.recall.multiday.personas import PERSONAS
from benchmarks.recall.multiday.storylines import (
    ABSTENTION,
    FORGET,
    KINDS,
    MULTI,
    PREFERENCE,
    TEMPORAL,
    UPDATE,
    USER,
)
from benchmarks.recall.multiday.task import MultiDay, history, sources_to_forget
from benchmarks.recall.tasks import TASKS

HEADER = re.compile(r"\[(\d{4}-\d\d-\d\d) (Mon|Tue|Wed|Thu|Fri|Sat|Sun) (\d\d:\d\d)\]\n")
LENGTHS = (2_000, 8_000, 32_000)


def count_tokens(text: str) -> int:
    """A stand-in for a tokenizer: short runs of letters, single digits, marks."""
    return len(re.findall(r"[A-Za-z]{1,6}|[0-9]|[^\sA-Za-z0-9]", text))


@cache
def drawn(persona: int, tokens: int, seed: int = 3, part: int = 0) -> Diary:
    """A diary, made once."""
    return diary(persona, tokens=tokens, seed=seed, count_tokens=count_tokens, part=part)


ALL = [(persona, tokens) for tokens in LENGTHS for persona in range(len(PERSONAS))]
SOME = [(persona, tokens) for tokens in LENGTHS for persona in (0, 4, 7, 11)]


def queries(one: Diary, kind: str) -> list[Query]:
    """The diary's questions of a kind."""
    return [query for query in one.queries if query.question.kind == kind]


@pytest.mark.parametrize(("tokens", "days"), [(2_000, 5), (8_000, 20), (32_000, 80), (128_000, 320)])
def test_lengths_stand_for_days(tokens: int, days: int) -> None:
    """The four scales are 5, 20, 80 and 320 days."""
    assert days_of(tokens) == days


@pytest.mark.parametrize(("persona", "tokens"), ALL)
def test_a_diary_has_the_length_asked_for(persona: int, tokens: int) -> None:
    """Within 8 percent below at five days, 2 percent otherwise, and never above; every day has a session."""
    one = drawn(persona, tokens)
    size = sum(count_tokens(message.text) for _, message in one.messages())

    assert (0.92 if tokens == 2_000 else 0.98) * tokens <= size <= tokens
    assert len({session.at.date() for session in one.sessions}) == one.days == days_of(tokens)


@pytest.mark.parametrize(("persona", "tokens"), ALL)
def test_sessions_are_dated_chats(persona: int, tokens: int) -> None:
    """4 to 10 turns by turns of the two, 100 to 700 tokens, one true header each, in the order of time."""
    one = drawn(persona, tokens)
    times = []
    for session in one.sessions:
        assert 4 <= len(session.messages) <= 10
        assert [message.role for message in session.messages] == ["user", "assistant"] * (
            len(session.messages) // 2
        )
        assert 100 <= sum(count_tokens(message.text) for message in session.messages) <= 700
        found = HEADER.match(session.messages[0].text)
        assert found
        times.append(datetime.strptime(f"{found[1]} {found[3]}", "%Y-%m-%d %H:%M"))  # noqa: DTZ007
        assert times[-1] == session.at
        assert f"{session.at:%a}" == found[2]
        assert not any(HEADER.search(message.text) for message in session.messages[1:])
    assert times == sorted(set(times))
    assert times[-1] < one.asked_at < times[-1] + timedelta(days=2)


@pytest.mark.parametrize(("persona", "tokens"), ALL)
def test_no_text_is_left_unfilled(persona: int, tokens: int) -> None:
    """No slot, no doubled blank, no sentence begun small."""
    for _, message in drawn(persona, tokens).messages():
        assert not re.search(r"[{}]|  | ,|\ba (?!one-)[aeio]", message.text), message.text
        assert re.match(r"[\"“A-Z]", HEADER.sub("", message.text)), message.text


def test_the_counts_are_those_of_the_specification() -> None:
    """Over all personas and parts: 60 of most kinds, 50 and 40 of the others, none twice, ten changed back."""
    for tokens in LENGTHS:
        parts = parts_of(tokens)
        for kind in KINDS:
            found = [
                number
                for persona in range(len(PERSONAS))
                for part in range(parts)
                for number in numbered(kind, persona, part, parts)
            ]
            assert sorted(found) == list(range(QUESTIONS[kind]))
    assert sum(QUESTIONS.values()) == 440

    made = [drawn(persona, 32_000) for persona in range(len(PERSONAS))]
    kinds = Counter(query.question.kind for one in made for query in one.queries)
    told = Counter(
        sum(message.storyline == query.storyline and bool(message.facts) for _, message in one.messages())
        for one in made
        for query in queries(one, UPDATE)
    )
    assert kinds == Counter(QUESTIONS)
    assert told == {2: 50, 3: 10}


def test_parts_share_a_personas_questions() -> None:
    """The six diaries of five days hold as many questions of each kind as the one of eighty."""
    for persona in (1, 8):
        small = [drawn(persona, 2_000, part=part) for part in range(parts_of(2_000))]
        split = Counter(query.question.kind for one in small for query in one.queries)
        whole = Counter(query.question.kind for query in drawn(persona, 32_000).queries)
        assert split == whole
        assert len({one.id for one in small}) == len(small)


@pytest.mark.parametrize(("persona", "tokens"), SOME)
def test_no_matter_serves_two_questions(persona: int, tokens: int) -> None:
    """Every telling belongs to one storyline, every subject to one question or none."""
    one = drawn(persona, tokens)
    owners: dict[str, set[str | None]] = {}
    for _, message in one.messages():
        for fact in message.facts:
            owners.setdefault(fact.subject, set()).add(message.storyline)

    assert all(len(owner) == 1 for owner in owners.values())
    assert len({query.question.id for query in one.queries}) == len(one.queries)


@pytest.mark.parametrize(("persona", "tokens"), ALL)
def test_a_storyline_takes_its_days(persona: int, tokens: int) -> None:
    """No two tellings of one question fall on the same day: nothing changes back within the hour."""
    one = drawn(persona, tokens)
    days: dict[str | None, list[object]] = {}
    for session, message in one.messages():
        if message.facts:
            days.setdefault(message.storyline, []).append(session.at.date())

    assert all(len(set(found)) == len(found) for found in days.values())


@pytest.mark.parametrize(("persona", "tokens"), SOME)
def test_evidence_stands_once_and_says_the_answer(persona: int, tokens: int) -> None:
    """Each snippet occurs once in the pieces; told values stand in one of theirs, abstentions have none."""
    one = drawn(persona, tokens)
    text = "\n".join(message.text for _, message in one.messages())
    for query in one.queries:
        question = query.question
        assert all(text.count(snippet) == 1 for snippet in question.evidence)
        assert bool(question.evidence) == (question.kind != ABSTENTION)
        if question.kind not in {ABSTENTION, PREFERENCE, MULTI, TEMPORAL}:
            assert any(question.answers[0] in snippet for snippet in question.evidence), question


@pytest.mark.parametrize("persona", range(12))
def test_sums_counts_and_days_follow_from_the_snippets(persona: int) -> None:
    """Read from the evidence alone: what the amounts add up to, how many tellings, how far apart the headers."""
    one = drawn(persona, 32_000)
    for query in queries(one, MULTI):
        question = query.question
        amounts = [int(found) for snippet in question.evidence for found in re.findall(r"\d+", snippet)]
        if "Which" in question.prompt or "Of which" in question.prompt:
            (most,) = [snippet for snippet in question.evidence if str(max(amounts)) in snippet]
            assert question.answers[0].lower() in most.lower()
        elif amounts:
            assert int(question.answers[0]) == sum(amounts)
        else:
            assert int(question.answers[0]) == len(question.evidence)
    for query in queries(one, TEMPORAL):
        question = query.question
        days = [
            datetime.fromisoformat(HEADER.match(snippet)[1])  # type: ignore[index]
            for snippet in question.evidence
        ]
        if question.answers[0].isdigit():
            assert abs((days[1] - days[0]).days) == int(question.answers[0]) >= 4
        else:
            assert len(set(days)) == len(days) == len(question.choices)
            assert min(days) == days[0]
            assert any(name.split()[-1] in question.evidence[0] for name in question.answers)


@pytest.mark.parametrize("persona", range(12))
def test_updates_end_on_the_newest_value(persona: int) -> None:
    """The last telling of an update holds the answer; the outdated value is what must not be said."""
    one = drawn(persona, 32_000)
    for query in queries(one, UPDATE):
        told = [m for _, m in one.messages() if m.storyline == query.storyline and m.facts]
        values = [message.facts[0].value for message in told]
        assert values[-1] == query.question.answers[0]
        assert values[-2] == query.question.must_not[0] != values[-1]
        assert [message.answers for message in told] == [False] * (len(told) - 1) + [True]
        assert len(values) == 2 or values[0] == values[2]


def test_forgetting_is_asked_for_in_both_ways() -> None:
    """About half by the user's wish, after the thing was told; half marked for the memory's `forget`."""
    ways = Counter[str]()
    for persona in range(len(PERSONAS)):
        one = drawn(persona, 32_000)
        for query in queries(one, FORGET):
            told = [m for _, m in one.messages() if m.storyline == query.storyline and m.facts]
            secret = next(m for m in told if m.facts[0].value == query.question.must_not[0])
            wishes = [message for message in told if message.facts[0].kind == "forget"]
            assert bool(wishes) != bool(secret.source)
            ways["wish" if wishes else "api"] += 1
            if wishes:
                assert told.index(secret) < told.index(wishes[0])
                assert any(snippet in wishes[0].text for snippet in query.question.evidence)
            else:
                assert secret.text in [
                    piece.text for piece in history(one, 32_000).pieces if piece.source == secret.source
                ]
        sources = sources_to_forget(history(one, 32_000))
        assert len(sources) == sum("-api" in query.storyline for query in one.queries)
    assert ways.total() == 40
    assert min(ways.values()) >= 15


@pytest.mark.parametrize(("persona", "tokens"), ALL)
def test_ends_hold_no_evidence(persona: int, tokens: int) -> None:
    """Evidence lies behind the first exchange and before a tail longer than a usual recent window."""
    one = drawn(persona, tokens)
    sizes = [(message, count_tokens(message.text)) for _, message in one.messages()]
    last = max(number for number, (message, _) in enumerate(sizes) if message.answers)
    first = min(number for number, (message, _) in enumerate(sizes) if message.answers)

    assert first >= 2
    assert sum(size for _, size in sizes[last + 1 :]) >= min(TAIL_TOKENS, tokens // 5) * 0.6


@pytest.mark.parametrize("persona", range(12))
def test_filler_speaks_of_other_matters_in_the_same_manner(persona: int) -> None:
    """Most of a long diary answers nothing, and some of that is told like evidence, on matters nobody asks about."""
    one = drawn(persona, 32_000)
    messages = [message for _, message in one.messages()]
    neutral = [message for message in messages if message.storyline is None]
    unasked = [m for m in messages if m.facts and m.storyline and m.storyline.endswith("(unasked)")]

    assert len(neutral) > len(messages) / 2
    assert len(unasked) >= 3
    assert not any(message.answers and message.storyline is None for message in messages)


def test_a_seed_fixes_everything() -> None:
    """Drawn again it is the same; another seed, person, part or length gives another."""
    base = diary(2, tokens=8_000, seed=1, count_tokens=count_tokens)
    others = [
        diary(2, tokens=8_000, seed=2, count_tokens=count_tokens),
        diary(3, tokens=8_000, seed=1, count_tokens=count_tokens),
        diary(2, tokens=8_000, seed=1, count_tokens=count_tokens, part=1),
        diary(2, tokens=32_000, seed=1, count_tokens=count_tokens),
    ]

    assert diary(2, tokens=8_000, seed=1, count_tokens=count_tokens) == base
    assert len({one.id for one in (base, *others)}) == 5
    assert all([q.question for q in one.queries] != [q.question for q in base.queries] for one in others)


def test_a_question_carries_the_date_it_is_asked_on() -> None:
    """The prompt begins with a header after the last session's, and choices hold the answer first."""
    for query in drawn(6, 8_000).queries:
        found = HEADER.match(query.question.prompt)
        assert found and datetime.fromisoformat(f"{found[1]} {found[3]}") == drawn(6, 8_000).asked_at
        assert 2 <= len(query.question.choices) == len(set(query.question.choices)) <= 4
    for query in queries(drawn(6, 8_000), USER):
        assert query.question.choices[0] == query.question.answers[0]


def test_the_task_gives_one_person_after_the_other() -> None:
    """Histories go through the personas, then the parts, then the seeds; pieces of a session share their time."""
    made: list[History] = list(MultiDay().histories(8_000, 25, 3, count_tokens))

    assert isinstance(TASKS["multiday"](), MultiDay)
    assert len({one.id for one in made}) == 25
    assert [one.seed for one in made] == [3] * 24 + [4]
    assert made[0].id == "multiday-nora-20d-s3"
    assert made[12].id == "multiday-nora-20d-s3-p1"
    assert {one.tokens for one in made} == {8_000}
    stamps = [piece.at for piece in made[0].pieces]
    assert None not in stamps and stamps == sorted(stamps, key=str)
    assert len(set(stamps)) == len(drawn(0, 8_000).sessions)


def test_too_few_tokens_are_refused() -> None:
    """Five days need their length; the message says how much."""
    with pytest.raises(ValueError, match="1900 or more"):
        diary(0, tokens=1_000, seed=1, count_tokens=count_tokens)


def test_a_long_diary_holds_together() -> None:
    """320 days: 128,000 tokens, all questions, sessions on every day."""
    one = drawn(9, 128_000)

    assert one.days == 320
    assert len(one.sessions) >= 320
    assert len(one.queries) == len(drawn(9, 32_000).queries)

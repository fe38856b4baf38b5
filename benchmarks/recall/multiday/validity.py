"""What makes a diary fair, checked without a model.

Every answer follows from the whole, and from nothing less than all its evidence; no other message gives it
away; no other message is about the matter asked. Knows nothing of how diaries are made.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.recall.multiday.diary import Diary, Message, Query, Session, known
from benchmarks.recall.multiday.wording import normalised


def problems(diary: Diary) -> list[str]:
    """What is wrong with a diary, in words; [] when it is fair."""
    messages = list(diary.messages())
    plain = [(message, f" {normalised(message.text)} ") for _, message in messages]
    found: list[str] = []
    for query in diary.queries:
        found += _underivable(query, messages)
        found += _given_away(query, plain)
        found += _snippets(query, messages)
    return found


def _underivable(query: Query, messages: list[tuple[Session, Message]]) -> Iterator[str]:
    """The answer must follow from everything, and cease to with any evidence message gone."""
    name = query.question.id
    if query.rule.answer(known(messages)) != query.gold:
        yield f"{name}: the rule gives {query.rule.answer(known(messages))!r}, not {query.gold!r}"
    evidence = [
        message for _, message in messages if message.storyline == query.storyline and message.answers
    ]
    if bool(evidence) != (query.gold is not None):
        yield f"{name}: {len(evidence)} messages of evidence for {query.gold!r}"
    for message in evidence:
        if query.rule.answer(known(messages, message)) == query.gold:
            yield f"{name}: still answered without {message.text!r}"


def _given_away(query: Query, plain: list[tuple[Message, str]]) -> Iterator[str]:
    """No message outside the storyline may hold the answer or be about its matter."""
    name = query.question.id
    elsewhere = [f" {normalised(phrase)} " for phrase in (*query.leaks, *query.cues)]
    nowhere = [f" {normalised(phrase)} " for phrase in query.absent]
    for message, text in plain:
        for phrase in elsewhere if message.storyline != query.storyline else ():
            if phrase in text:
                yield f"{name}: {phrase.strip()!r} stands in another message, {message.text!r}"
        for phrase in nowhere:
            if phrase in text:
                yield f"{name}: {phrase.strip()!r} must not stand in {message.text!r}"


def _snippets(query: Query, messages: list[tuple[Session, Message]]) -> Iterator[str]:
    """Each snippet of evidence stands in the history once."""
    for snippet in query.question.evidence:
        times = sum(message.text.count(snippet) for _, message in messages)
        if times != 1:
            yield f"{query.question.id}: the evidence {snippet!r} stands in the history {times} times"

"""Diaries in LongMemEval's JSON schema (arXiv 2410.10813), so that its scorer and other harnesses can read them.

One record for each question, with the whole haystack in it. An abstention is a single-session-user question
with "_abs" in its id, as there. Forgetting has no type there: it is given as knowledge-update, and
`multiday_kind` says what it is. Of things forgotten through a memory's `forget`, the turn carries
`"forget": true`: a system must drop it before it answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from benchmarks.recall.multiday.diary import Diary, Message, Query, Session, header
from benchmarks.recall.multiday.storylines import ABSTENTION, FORGET, UPDATE, USER

OFFICIAL_TYPE = {ABSTENTION: USER, FORGET: UPDATE}
"""Kind here -> the `question_type` that the official scorer knows; the other kinds are called alike."""


def records(diary: Diary) -> Iterator[dict[str, Any]]:
    """One record for each question of a diary."""
    for query in diary.queries:
        yield _record(diary, query)


def _record(diary: Diary, query: Query) -> dict[str, Any]:
    question = query.question
    kind = question.kind
    sessions = [
        session.id
        for session in diary.sessions
        if any(_is_evidence(message, query) for message in session.messages)
    ]
    answer = question.answers[0]
    if kind == FORGET:
        answer += "; the other one was to be forgotten and must not be told"
    return {
        "question_id": question.id + ("_abs" if kind == ABSTENTION else ""),
        "question_type": OFFICIAL_TYPE.get(kind, kind),
        "question": question.prompt.partition("\n")[2],
        "answer": answer,
        "question_date": date_in_words(diary.asked_at),
        "haystack_session_ids": [session.id for session in diary.sessions],
        "haystack_dates": [date_in_words(session.at) for session in diary.sessions],
        "haystack_sessions": [
            [_turn(session, message, query) for message in session.messages] for session in diary.sessions
        ],
        "answer_session_ids": sessions,
        "multiday_kind": kind,
        "answers": list(question.answers),
        "must_not": list(question.must_not),
        "choices": list(question.choices),
    }


def _turn(session: Session, message: Message, query: Query) -> dict[str, Any]:
    """A turn without the header, which the schema keeps in `haystack_dates`."""
    turn: dict[str, Any] = {
        "role": message.role,
        "content": message.text.removeprefix(f"{header(session.at)}\n"),
    }
    if message.role == "user" or _is_evidence(message, query):
        turn["has_answer"] = _is_evidence(message, query)
    if message.source:
        turn["forget"] = True
    return turn


def _is_evidence(message: Message, query: Query) -> bool:
    return message.answers and message.storyline == query.storyline


def date_in_words(at: datetime) -> str:
    """LongMemEval's way of writing a date: "2026/03/04 (Wed) 09:12"."""
    day = header(at)[1:].split()[1]
    return f"{at:%Y/%m/%d} ({day}) {at:%H:%M}"

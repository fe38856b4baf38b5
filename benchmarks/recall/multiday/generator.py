"""Diaries: storylines laid into sessions, talk round them up to the length asked for.

The same seed gives the same diary. A draw whose answer is given away elsewhere, or that finds no room, is
thrown away and drawn again, so whatever leaves here has passed `validity.problems`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, time, timedelta
from random import Random

from benchmarks.recall.items import Question
from benchmarks.recall.multiday import cast
from benchmarks.recall.multiday.chats import chats
from benchmarks.recall.multiday.diary import Diary, Query, Session, header
from benchmarks.recall.multiday.filler import Threads
from benchmarks.recall.multiday.personas import PERSONAS
from benchmarks.recall.multiday.sessions import NoRoomError, Placed, clock, place, session_days
from benchmarks.recall.multiday.storylines import Storyline, Telling
from benchmarks.recall.multiday.texts import catalogue
from benchmarks.recall.multiday.validity import problems

TOKENS_A_DAY = 400
TOKENS_A_SESSION = 320
SHORT_DAYS = 10
"""Below that, two sessions fall on some days, and no distances between days are asked."""
LEAST_DAYS = 5
LEAST_TOKENS = 1_900
TAIL_TOKENS = 1_300
"""The end of a history that answers nothing, so that answers lie outside a recent window of 1,024 tokens..."""
TAIL_SHARE = 5
"""...but at most a fifth of a history."""
SESSIONS_A_BYSTANDER = 6
EVENING = time(18, 30)
"""When the questions are asked, on the day after the last session."""
DRAWS = 60


def days_of(tokens: int) -> int:
    """The days that a history of so many tokens covers: 2k, 8k, 32k, 128k -> 5, 20, 80, 320."""
    return max(LEAST_DAYS, round(tokens / TOKENS_A_DAY))


def diary(
    persona: int, *, tokens: int, seed: int, count_tokens: Callable[[str], int], part: int = 0
) -> Diary:
    """The diary of one persona (0..11), about `tokens` long; see `cast.parts_of` for `part`.

    Raises:
        ValueError: too few tokens for five days of talk.
        RuntimeError: no draw passed the checks.
    """
    if tokens < LEAST_TOKENS:
        raise ValueError(f"{tokens} tokens hold no {LEAST_DAYS} days of talk: ask for {LEAST_TOKENS} or more")
    found: list[str] = []
    for draw in range(DRAWS):
        rng = Random(f"multiday {seed} {persona} {part} {draw}")  # noqa: S311  a draw, not a secret
        try:
            made = _draw(rng, persona, part, tokens, seed, count_tokens)
        except NoRoomError as error:
            found = [str(error)]
            continue
        found = problems(made)
        if not found:
            return made
    raise RuntimeError(
        f"no diary of {tokens} tokens for {PERSONAS[persona].name} (seed {seed}, part {part}) passed the checks "
        f"in {DRAWS} draws; the last failed with: {found[0]}; ask for more tokens or another seed"
    )


def _draw(
    rng: Random, persona: int, part: int, tokens: int, seed: int, count_tokens: Callable[[str], int]
) -> Diary:
    person, texts, days = PERSONAS[persona], catalogue(), days_of(tokens)
    short = days < SHORT_DAYS
    sessions = max(days + 3 if short else days, -(-tokens // TOKENS_A_SESSION))
    lines = list(cast.storylines(rng, texts, persona, part=part, parts=cast.parts_of(tokens), short=short))
    unasked = cast.bystanders(rng, texts, person, lines, sessions // SESSIONS_A_BYSTANDER)
    on_day = session_days(rng, days, sessions)
    told = [*lines, *(replace(line, name=f"{line.name} (unasked)", kind="") for line in unasked)]
    placed = place(rng, told, on_day, sessions - _tail(sessions, tokens))
    times = clock(rng, on_day, placed, persona)
    openings = [(header(at), person.greeting(at.hour)) for at in times]
    made = chats(rng, Threads(rng, person, texts), placed, openings, tokens, count_tokens)
    name = f"multiday-{person.name.lower()}-{days}d-s{seed}" + (f"-p{part}" if part else "")
    built = tuple(
        Session(f"{name}-{number:03d}", at, tuple(chat.messages()))
        for number, (at, chat) in enumerate(zip(times, made, strict=True))
    )
    asked_at = datetime.combine(times[-1].date() + timedelta(days=1), EVENING)
    queries = tuple(_query(line, placed, built, name, asked_at) for line in lines)
    return Diary(name, person.name, days, seed, asked_at, built, queries)


def _tail(sessions: int, tokens: int) -> int:
    """How many sessions at the end answer nothing."""
    return -(-min(TAIL_TOKENS, tokens // TAIL_SHARE) * sessions // tokens)


def _query(
    line: Storyline, placed: Sequence[Placed], sessions: Sequence[Session], name: str, asked_at: datetime
) -> Query:
    mine = [found for found in placed if found.storyline is line]
    asked = line.ask([sessions[found.session].at.date() for found in mine])
    question = Question(
        id=f"{name}/{line.kind}/{line.name}",
        kind=line.kind,
        prompt=f"{header(asked_at)}\n{asked.text}",
        answers=asked.answers,
        evidence=tuple(
            _snippet(found.telling, sessions[found.session], line.name)
            for found in mine
            if found.telling.answers
        ),
        must_not=asked.must_not,
        choices=asked.choices,
        max_new_tokens=asked.max_new_tokens,
    )
    return Query(question, line.name, line.rule, asked.gold, asked.leaks, line.cues, line.absent)


def _snippet(telling: Telling, session: Session, name: str) -> str:
    """The span as it stands in the history; a dated one from its header on."""
    if not telling.dated:
        return telling.span
    text = next(message.text for message in session.messages if message.storyline == name)
    return text[: text.index(telling.span) + len(telling.span)]

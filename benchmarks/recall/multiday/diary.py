"""A history with all that is known about it: sessions, messages, what each says, and the questions.

The model's only clock is the header at the top of each session. This form serves the checks, the export and
the statistics; `task.py` makes the pieces for a memory of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from benchmarks.recall.items import Question
from benchmarks.recall.multiday.facts import Dated, Fact, Rule
from benchmarks.recall.multiday.storylines import FORGET_PREFIX


@dataclass(frozen=True)
class Message:
    """One turn. `storylines`: the names of those it belongs to; none for filler."""

    role: str
    text: str
    facts: tuple[Fact, ...] = ()
    storyline: str | None = None
    answers: bool = False
    """Whether a question rests on what it says."""
    source: str | None = None


@dataclass(frozen=True)
class Session:
    """A day-stamped chat; its header opens the first message's text."""

    id: str
    at: datetime
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Query:
    """A question and what is known about it: the storyline that leads to it, its rule, the right result."""

    question: Question
    storyline: str
    rule: Rule
    gold: str | None
    leaks: tuple[str, ...]
    cues: tuple[str, ...]
    absent: tuple[str, ...]


@dataclass(frozen=True)
class Diary:
    """One person's history over some days and what is asked at its end."""

    id: str
    persona: str
    days: int
    seed: int
    asked_at: datetime
    sessions: tuple[Session, ...]
    queries: tuple[Query, ...]

    def messages(self) -> Iterator[tuple[Session, Message]]:
        """Every message with its session, in order."""
        for session in self.sessions:
            for message in session.messages:
                yield session, message


def known(
    messages: Sequence[tuple[Session, Message]], without: Message | None = None, *, forgets: bool = True
) -> list[Dated]:
    """The facts that `messages` tell, in order, but those of `without`.

    Args:
        messages: as `Diary.messages` gives them.
        without: a message left out.
        forgets: leave out, too, what the memory is made to forget before questions.
    """
    return [
        Dated(session.at.date(), fact)
        for session, message in messages
        if message is not without and not (forgets and (message.source or "").startswith(FORGET_PREFIX))
        for fact in message.facts
    ]


def header(at: datetime) -> str:
    """The line that dates a session: "[2026-03-04 Wed 09:12]"."""
    return f"[{at:%Y-%m-%d} {'Mon Tue Wed Thu Fri Sat Sun'.split()[at.weekday()]} {at:%H:%M}]"

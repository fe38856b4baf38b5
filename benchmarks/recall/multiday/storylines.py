"""What a history is woven from: tellings that belong together, and the question they lead to.

A storyline knows its messages in their order and how its question is worded once the days are known. It
does not know where in the history its messages will stand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

from benchmarks.recall.multiday.facts import Fact, Rule
from benchmarks.recall.multiday.personas import Persona
from benchmarks.recall.multiday.texts import Scene, sentence_with

USER = "single-session-user"
ASSISTANT = "single-session-assistant"
PREFERENCE = "single-session-preference"
MULTI = "multi-session"
TEMPORAL = "temporal-reasoning"
UPDATE = "knowledge-update"
ABSTENTION = "abstention"
FORGET = "forget"
KINDS = (USER, ASSISTANT, PREFERENCE, MULTI, TEMPORAL, UPDATE, ABSTENTION, FORGET)

FORGET_PREFIX = "forget:"
"""A piece with a source that begins so is to be dropped through the memory's `forget` before questions."""


@dataclass(frozen=True)
class Telling:
    """A user's message and its reply, one of which tells facts.

    `span` is the stretch of the teller's text that holds them. `answers`: the question rests on this one
    (an outdated value or a told thing to be forgotten does not). `dated`: the day it is told on is part of
    what it says, so it opens its session, beside the header. `source`: see `FORGET_PREFIX`.
    """

    user: str
    reply: str
    facts: tuple[Fact, ...]
    span: str
    teller: str = "user"
    answers: bool = True
    dated: bool = False
    source: str | None = None


@dataclass(frozen=True)
class Asked:
    """A question in words.

    `gold` is what the storyline's rule gives once all is told; None: no answer must follow. `leaks`: phrases
    that must not stand outside the storyline's own messages.
    """

    text: str
    gold: str | None
    answers: tuple[str, ...]
    leaks: tuple[str, ...]
    must_not: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    max_new_tokens: int = 32


@dataclass(frozen=True)
class Storyline:
    """Tellings in order and what they lead to.

    `cues` show a message to
    be about these matters; `absent` are matters that no message may touch. `least_gap`: days between
    one telling and the next.
    """

    name: str
    kind: str
    tellings: tuple[Telling, ...]
    rule: Rule
    cues: tuple[str, ...]
    ask: Callable[[Sequence[date]], Asked]
    """From the days of the tellings, in order."""
    absent: tuple[str, ...] = ()
    least_gap: int = 1


def telling(
    person: Persona, scene: Scene, fact: Fact, slots: dict[str, str], *, answers: bool = True
) -> Telling:
    """A scene told by the user, its slots filled; the sentences with the slots are its span."""
    user = person.fill(scene.user, **slots)
    needles = [value if value in user else value[:1].upper() + value[1:] for value in slots.values()]
    return Telling(user, person.fill(scene.reply), (fact,), sentence_with(user, needles), answers=answers)

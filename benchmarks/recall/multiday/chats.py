"""Sessions in the making: tellings and the threads round them, up to a length; then the messages.

Knows tellings and threads, and neither questions nor what a telling is for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from benchmarks.recall.multiday.diary import Message
from benchmarks.recall.multiday.filler import TURNS_OF_TALK, Threads
from benchmarks.recall.multiday.sessions import Placed
from benchmarks.recall.multiday.texts import Scene

MOST_EXCHANGES = 5
LEAST_EXCHANGES = 2
BEFORE_THREADS = 0.4
"""How often a telling stands before the talk of its session, where it may."""


@dataclass
class Begun:
    """A thread and how many of its exchanges are in the session."""

    scenes: tuple[Scene, ...]
    said: int = 0


@dataclass
class Chat:
    """One session: a dated telling that opens it, tellings before its threads, threads, tellings after them."""

    opening: str
    """The header's line."""
    greeting: str
    turns: tuple[str, ...]
    """How the user goes over to a new matter, for each one; "" without a word."""
    opener: list[Placed] = field(default_factory=list)
    before: list[Placed] = field(default_factory=list)
    after: list[Placed] = field(default_factory=list)
    threads: list[Begun] = field(default_factory=list)
    starts_neutral: bool = False
    """A thread must come first: at the head of a history, and before what may be dropped again."""

    def exchanges(self) -> int:
        """How many messages of the user the session has."""
        return (
            sum(thread.said for thread in self.threads)
            + len(self.opener)
            + len(self.before)
            + len(self.after)
        )

    @property
    def lacks(self) -> bool:
        """Whether the session needs more talk to be one."""
        return self.exchanges() < LEAST_EXCHANGES or (self.starts_neutral and not self.threads)

    def messages(self) -> Iterator[Message]:
        """The messages; the first has the header and a greeting, a new matter often a word of transition.

        A dated telling goes without the greeting, so that it stands beside its date.
        """
        matters: list[Sequence[Scene | Placed]] = [(found,) for found in (*self.opener, *self.before)]
        matters += [thread.scenes[: thread.said] for thread in self.threads]
        matters += [(found,) for found in self.after]
        hello = f"{self.greeting} " if self.greeting and not self.opener else ""
        for number, matter in enumerate(matters):
            turn = self.turns[number]
            prefix = f"{self.opening}\n{hello}" if number == 0 else f"{turn} " if turn else ""
            for step, exchange in enumerate(matter):
                yield from _messages(exchange, "" if step else prefix)

    def tokens(self, count_tokens: Callable[[str], int]) -> int:
        """Tokens of all messages."""
        return sum(count_tokens(message.text) for message in self.messages())


def _messages(exchange: Scene | Placed, prefix: str) -> Iterator[Message]:
    """The user's message and the reply, with what is known about them."""
    if isinstance(exchange, Scene):
        yield Message("user", prefix + exchange.user)
        yield Message("assistant", exchange.reply)
        return
    telling, name = exchange.telling, exchange.storyline.name
    for role, text in (("user", prefix + telling.user), ("assistant", telling.reply)):
        tells = role == telling.teller
        yield Message(
            role,
            text,
            telling.facts if tells else (),
            name,
            tells and telling.answers,
            telling.source if tells else None,
        )


def chats(
    rng: Random,
    threads: Threads,
    placed: Sequence[Placed],
    openings: Sequence[tuple[str, str]],
    tokens: int,
    count_tokens: Callable[[str], int],
) -> list[Chat]:
    """A session for each opening (header and greeting) with its tellings, and threads up to the length.

    The length is kept unless tellings and the least talk exceed it; threads are spread evenly.
    """
    made = _with_tellings(rng, placed, openings)
    for chat in made:
        while chat.lacks:
            _go_on(chat, threads)
    spent = [chat.tokens(count_tokens) for chat in made]
    share = [rng.uniform(0.7, 1.4) for _ in made]
    while room := [number for number, chat in enumerate(made) if chat.exchanges() < MOST_EXCHANGES]:
        number = min(room, key=lambda number: spent[number] / share[number])
        _go_on(made[number], threads)
        spent[number] = made[number].tokens(count_tokens)
        if sum(spent) > tokens:
            _take_back(made[number])
            break
    return made


def _go_on(chat: Chat, threads: Threads) -> None:
    """The next exchange of the chat's last thread, or the first of a new one."""
    if not chat.threads or chat.threads[-1].said == len(chat.threads[-1].scenes):
        chat.threads.append(Begun(tuple(threads.next_thread())))
    chat.threads[-1].said += 1


def _take_back(chat: Chat) -> None:
    """Undo the last `_go_on`."""
    chat.threads[-1].said -= 1
    if not chat.threads[-1].said:
        chat.threads.pop()


def _with_tellings(rng: Random, placed: Sequence[Placed], openings: Sequence[tuple[str, str]]) -> list[Chat]:
    made = [
        Chat(header, greeting, tuple(rng.choice(TURNS_OF_TALK) for _ in range(MOST_EXCHANGES)))
        for header, greeting in openings
    ]
    made[0].starts_neutral = True
    for found in placed:
        chat = made[found.session]
        if found.telling.dated:
            chat.opener.append(found)
        elif found.session and not found.telling.source and rng.random() < BEFORE_THREADS:
            chat.before.append(found)
        else:
            chat.after.append(found)
            chat.starts_neutral |= found.telling.source is not None
    return made

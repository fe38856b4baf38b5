"""Which storylines a history has: so many of each kind, each on matters of its own.

440 questions over the twelve personas; where a history is short, a persona's questions are spread over
several histories. Knows nothing of sessions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random

from benchmarks.recall.multiday import plots, sums_and_days
from benchmarks.recall.multiday.personas import PERSONAS, Persona
from benchmarks.recall.multiday.storylines import (
    ABSTENTION,
    ASSISTANT,
    FORGET,
    KINDS,
    MULTI,
    PREFERENCE,
    TEMPORAL,
    UPDATE,
    USER,
    Storyline,
)
from benchmarks.recall.multiday.texts import Block, Catalogue

QUESTIONS: Mapping[str, int] = {
    USER: 60,
    ASSISTANT: 60,
    PREFERENCE: 50,
    MULTI: 60,
    TEMPORAL: 60,
    UPDATE: 60,
    ABSTENTION: 50,
    FORGET: 40,
}
"""Kind -> questions over all personas."""
CHANGED_BACK = 10
"""How many of the updates return to the first value."""


def parts_of(tokens: int) -> int:
    """Over how many histories of that length a persona's questions are spread.

    A history holds the tellings of its questions and room for other talk: about 70 messages for the whole
    of a persona's questions, some 100 tokens each with their replies.
    """
    return 1 if tokens >= 16_000 else 2 if tokens >= 6_000 else 6


def numbered(kind: str, persona: int, part: int, parts: int) -> list[int]:
    """The questions of a kind that fall to one part of a persona's, by their number among all of that kind."""
    total, people = QUESTIONS[kind], len(PERSONAS)
    shift = KINDS.index(kind)
    mine = [number for number in range(total) if number % people == _shifted(persona, kind)]
    return [number for order, number in enumerate(mine) if (order + shift + persona) % parts == part]


def _shifted(persona: int, kind: str) -> int:
    """Counts that twelve does not divide leave some over: other personas get them for each kind."""
    return (persona + 5 * KINDS.index(kind)) % len(PERSONAS)


def storylines(
    rng: Random, texts: Catalogue, persona: int, *, part: int, parts: int, short: bool
) -> Iterator[Storyline]:
    """The storylines of one history.

    Args:
        rng: where all choices come from.
        texts: what there is to tell.
        persona: number of the persona.
        part, parts: which of how many histories share the persona's questions.
        short: only few tellings to a question, and no distances between days.
    """
    person = PERSONAS[persona]
    numbers = {kind: numbered(kind, persona, part, parts) for kind in KINDS}
    yield from _about_attributes(rng, texts, person, numbers)
    for block in rng.sample(list(texts.assistant.values()), len(numbers[ASSISTANT])):
        yield plots.said_by_assistant(rng, person, block)
    for block in rng.sample(list(texts.preferences.values()), len(numbers[PREFERENCE])):
        yield plots.preferred(rng, person, block)
    for block in rng.sample(list(texts.collections.values()), len(numbers[MULTI])):
        yield sums_and_days.collected(rng, person, block, rng.choice((2, 3) if short else (2, 3, 3, 4)))
    yield from _about_days(rng, person, list(texts.events.values()), numbers[TEMPORAL], short=short)


def _about_attributes(
    rng: Random, texts: Catalogue, person: Persona, numbers: Mapping[str, Sequence[int]]
) -> Iterator[Storyline]:
    """What draws on the attributes, each of them used once."""
    blocks = rng.sample(list(texts.attributes.values()), len(texts.attributes))
    for number in numbers[UPDATE]:
        block = next(block for block in blocks if "change" in block.scenes)
        blocks.remove(block)
        yield plots.changed(rng, person, block, back=number < CHANGED_BACK)
    for _ in numbers[USER]:
        yield plots.told(rng, person, blocks.pop())
    for _ in numbers[ABSTENTION]:
        yield plots.never_told(rng, person, blocks.pop())
    for number in numbers[FORGET]:
        yield plots.forgotten(
            rng, person, blocks.pop(), blocks.pop(), by_wish=(number + number // len(PERSONAS)) % 2 == 0
        )


def _about_days(
    rng: Random, person: Persona, events: list[Block], numbers: Sequence[int], *, short: bool
) -> Iterator[Storyline]:
    rng.shuffle(events)
    for number in numbers:
        if short:
            yield sums_and_days.which_first(rng, person, [events.pop(), events.pop()])
        elif (number + number // len(PERSONAS)) % 2:
            yield sums_and_days.which_first(rng, person, [events.pop(), events.pop(), events.pop()])
        else:
            yield sums_and_days.days_between(rng, person, events.pop(), events.pop())


def bystanders(
    rng: Random, texts: Catalogue, person: Persona, asked: Sequence[Storyline], most: int
) -> list[Storyline]:
    """Things told in the same manner that no question asks about, on matters that none touches."""
    taken = {fact.subject for line in asked for telling in line.tellings for fact in telling.facts}
    free: list[Storyline] = [
        plots.told(rng, person, block) for name, block in texts.attributes.items() if name not in taken
    ]
    free += [
        plots.said_by_assistant(rng, person, block)
        for name, block in texts.assistant.items()
        if name not in taken
    ]
    free += [
        plots.preferred(rng, person, block) for name, block in texts.preferences.items() if name not in taken
    ]
    return rng.sample(free, min(most, len(free)))

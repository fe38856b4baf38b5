"""Storylines that need several sessions: what adds up, what was the most, how far apart, which came first.

Knows nothing of how many are drawn or where they go.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from random import Random

from benchmarks.recall.multiday.facts import Count, DaysBetween, Fact, First, Most, Rule, Sum
from benchmarks.recall.multiday.personas import Persona
from benchmarks.recall.multiday.plots import PICK
from benchmarks.recall.multiday.storylines import MULTI, TEMPORAL, Asked, Storyline, Telling, telling
from benchmarks.recall.multiday.texts import Block, Scene, sentence_with

LEAST_GAP = 4
"""Days between two events whose distance is asked: less would be told by the tolerance of one day."""


def collected(rng: Random, person: Persona, block: Block, tellings: int) -> Storyline:
    """So many items of a collection, each told in a session of its own."""
    items = rng.sample(block.parts("items"), tellings)
    amounts = [0] * tellings
    if "amounts" in block.lines:
        amounts = [int(amount) for amount in rng.sample(block.parts("amounts"), tellings)]
    scenes = rng.sample(block.scenes["tell"], tellings)
    lines = tuple(
        _item(person, scene, block, item, amount)
        for scene, item, amount in zip(scenes, items, amounts, strict=True)
    )
    rule: Rule
    if block.one("rule") == "most":
        rule = Most(block.name, items)
        asked = _ask_most(rng, block, items, items[amounts.index(max(amounts))])
    else:
        rule = Count(block.name) if block.one("rule") == "count" else Sum(block.name)
        asked = _ask_number(rng, block, tellings if rule == Count(block.name) else sum(amounts))
    return Storyline(block.name, MULTI, lines, rule, block.cues, lambda _: asked)


def _item(person: Persona, scene: Scene, block: Block, item: str, amount: int) -> Telling:
    slots = {"item": item} | ({"n": str(amount)} if amount else {})
    return telling(person, scene, Fact("item", block.name, item, amount), slots)


def _ask_number(rng: Random, block: Block, number: int) -> Asked:
    units = block.parts("unit")
    step = 1 if number < 10 else 3
    near = [number + step * k for k in (-3, -2, -1, 1, 2, 3) if number + step * k > 0]
    others = rng.sample(near, 3)
    unit = units[-1]
    return Asked(
        f"{block.one('ask')} Answer with the number.",
        str(number),
        (str(number), f"{number} {unit}"),
        tuple(f"{number} {name}" for name in units),
        choices=tuple(f"{found} {unit}" for found in (number, *others)),
    )


def _ask_most(rng: Random, block: Block, items: Sequence[str], most: str) -> Asked:
    listed = list(rng.sample(list(items), len(items)))
    options = ", ".join(listed[:-1]) + f" or {listed[-1]}"
    others = tuple(item for item in items if item != most)
    return Asked(
        f"{block.one('ask').replace('{options}', options)} {PICK}",
        most,
        (most, most.removeprefix("the ")),
        (most,),
        others,
        (most, *others),
    )


def days_between(rng: Random, person: Persona, first: Block, second: Block) -> Storyline:
    """Two events, and how many days lie between them."""
    lines = (_event(rng, person, first), _event(rng, person, second))
    names = [block.parts("label")[0] for block in rng.sample([first, second], 2)]

    def ask(days: Sequence[date]) -> Asked:
        number = abs((days[1] - days[0]).days)
        offsets = [k for k in (-9, -6, -4, -3, 3, 4, 6, 9) if number + k > 0]
        others = [number + k for k in offsets[number % 3 :][:3]]
        return Asked(
            f"How many days passed between {names[0]} and {names[1]}? Answer with the number.",
            str(number),
            (str(number), f"{number} days"),
            (f"{number} days",),
            choices=tuple(f"{found} days" for found in (number, *others)),
        )

    rule = DaysBetween(first.name, second.name)
    cues = first.cues + second.cues
    name = f"{first.name}-{second.name}"
    return Storyline(name, TEMPORAL, lines, rule, cues, ask, least_gap=LEAST_GAP)


def which_first(rng: Random, person: Persona, blocks: Sequence[Block]) -> Storyline:
    """Some events, told in the order of `blocks`, and which of them came first."""
    lines = tuple(_event(rng, person, block) for block in blocks)
    labels = {block.name: block.parts("label") for block in blocks}
    listed = [labels[block.name][0] for block in rng.sample(list(blocks), len(blocks))]
    options = ", ".join(listed[:-1]) + f" or {listed[-1]}"
    first, *later = blocks
    asked = Asked(
        f"Which came first: {options}? {PICK}",
        first.name,
        labels[first.name],
        (),
        tuple(name for block in later for name in labels[block.name]),
        tuple(labels[block.name][0] for block in blocks),
    )
    rule = First([block.name for block in blocks])
    cues = tuple(cue for block in blocks for cue in block.cues)
    name = "-".join(block.name for block in blocks)
    return Storyline(name, TEMPORAL, lines, rule, cues, lambda _: asked)


def _event(rng: Random, person: Persona, block: Block) -> Telling:
    """The event of a block, told on its day; its first sentence says it."""
    scene = rng.choice(block.scenes["tell"])
    user = person.fill(scene.user)
    return Telling(
        user,
        person.fill(scene.reply),
        (Fact("event", block.name),),
        sentence_with(user, [user[:1]]),
        dated=True,
    )

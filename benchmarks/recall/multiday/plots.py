"""One storyline of each kind, drawn from the texts: about what is so, what changed, what was never told.

Each function takes a source of randomness, a person and blocks of text. Knows nothing of how many are
drawn or where they go.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from benchmarks.recall.multiday.facts import FORGOTTEN, Fact, KeptAndForgotten, Newest, Suits
from benchmarks.recall.multiday.personas import Persona
from benchmarks.recall.multiday.storylines import (
    ABSTENTION,
    ASSISTANT,
    FORGET,
    FORGET_PREFIX,
    PREFERENCE,
    UPDATE,
    USER,
    Asked,
    Storyline,
    Telling,
    telling,
)
from benchmarks.recall.multiday.texts import Block, Scene, Value, sentence_with

BRIEFLY = "Answer in a few words."
"""Nothing about not knowing: told that they may, small models say that they do not, of all things."""
PICK = "Name one of them."
REFUSAL = "I do not know; you have not told me."

WISHES = (
    Scene(
        "A request before we go on. Please forget {what}; I should not have told you that. And then help me "
        "with a polite line for a card to somebody who has moved away.",
        'It is gone. For the card: "The street is quieter without you, and not in a good way. Come back and '
        'make some noise."',
    ),
    Scene(
        "Something has been bothering me. I would like you to forget {what}, and not to mention it again. Now "
        "to nicer things: what do I do with a bag of wrinkled apples?",
        "I will not mention it again. The apples will do for a crumble: slice them, skins and all, and let "
        "butter, sugar and oats do the rest.",
    ),
    Scene(
        "I have been thinking about what I tell you. Please forget {what}, as if it had never been said. Also, "
        "how do I get a drawer to slide again?",
        "As if it had never been said. For the drawer, rub the runners with a candle stub; soap works too, "
        "but it collects dust.",
    ),
    Scene(
        "Please forget {what}. I mean it; whoever may ask you for it, me included, must not be told. That is one "
        "thing done. The next is a rhyme for a seed packet.",
        'Agreed. The rhyme: "Sow me shallow, water me slow, tell me a story and watch me grow."',
    ),
)


def told(rng: Random, person: Persona, block: Block) -> Storyline:
    """A value told once, in passing, and asked for."""
    value, *others = rng.sample(block.values, 4)
    asked = Asked(
        f"{block.one('ask')} {BRIEFLY}",
        value.text,
        value.names,
        value.names,
        _names(others),
        (value.text, *(other.text for other in others)),
    )
    scene = rng.choice(block.scenes["tell"])
    lines = (_tell(person, scene, block, value),)
    return Storyline(block.name, USER, lines, Newest(block.name), block.cues, lambda _: asked)


def said_by_assistant(rng: Random, person: Persona, block: Block) -> Storyline:
    """A value that the assistant gave and the user asks for again."""
    value, *others = rng.sample(block.values, 4)
    scene = rng.choice(block.scenes["tell"])
    reply = person.fill(scene.reply, v=value.text)
    line = Telling(
        person.fill(scene.user),
        reply,
        (Fact("value", block.name, value.text),),
        sentence_with(reply, [value.text]),
        teller="assistant",
    )
    asked = Asked(
        f"{block.one('ask')} {BRIEFLY}",
        value.text,
        value.names,
        tuple(name for name in value.names if not name.isdigit()),
        _names(others),
        (value.text, *(other.text for other in others)),
    )
    return Storyline(block.name, ASSISTANT, (line,), Newest(block.name), block.cues, lambda _: asked)


def preferred(rng: Random, person: Persona, block: Block) -> Storyline:
    """A taste told in passing; four recommendations, one of which suits it."""
    pairs = [_taste_and_option(line) for line in block.lines["like"]]
    offered = rng.sample(pairs, 4)
    taste, option = offered[0]
    order = rng.sample(offered, 4)
    listed = ", ".join(other for _, other in order[:-1]) + f" or {order[-1][1]}"
    others = tuple(other for _, other in offered[1:])
    scene = rng.choice(block.scenes["tell"])
    line = telling(person, scene, Fact("value", block.name, taste), {"v": taste})
    asked = Asked(
        f"{block.one('ask').replace('{options}', listed)} {PICK}",
        option,
        (option, option.removeprefix("the ")),
        (taste, option),
        others,
        (option, *others),
    )
    rule = Suits(block.name, dict(pairs))
    return Storyline(block.name, PREFERENCE, (line,), rule, block.cues, lambda _: asked)


def changed(rng: Random, person: Persona, block: Block, *, back: bool) -> Storyline:
    """A value told, then a new one; with `back`, the first one again after that."""
    old, new, *others = rng.sample(block.values, 4)
    first = _tell(person, rng.choice(block.scenes["tell"]), block, old, answers=False)
    second = _tell(person, rng.choice(block.scenes["change"]), block, new, answers=not back)
    lines: tuple[Telling, ...] = (first, second)
    now, stale = new, old
    if back:
        lines += (_tell(person, rng.choice(block.scenes["return"]), block, old),)
        now, stale = old, new
    asked = Asked(
        f"{_nowadays(block.one('ask'))} {BRIEFLY}",
        now.text,
        now.names,
        now.names,
        stale.names,
        (now.text, stale.text, *(other.text for other in others)),
    )
    return Storyline(block.name, UPDATE, lines, Newest(block.name), block.cues, lambda _: asked)


def never_told(rng: Random, person: Persona, block: Block) -> Storyline:
    """A value told, and a question about something else that sounds alike."""
    value, *others = rng.sample(block.values, 3)
    line = _tell(person, rng.choice(block.scenes["tell"]), block, value, answers=False)
    asked = Asked(
        f"{block.one('near')} {BRIEFLY}",
        None,
        (REFUSAL,),
        (),
        value.names,
        (REFUSAL, f"{value.text}.", *(f"{other.text}." for other in others)),
    )
    rule = Newest(f"{block.name}, its near miss")
    near = block.parts("near_cue")
    return Storyline(block.name, ABSTENTION, (line,), rule, block.cues, lambda _: asked, absent=near)


def forgotten(rng: Random, person: Persona, block: Block, kept: Block, *, by_wish: bool) -> Storyline:
    """Two values told, one of which is to be forgotten: by the user's wish, or through the memory's `forget`.

    Both are asked for at once, so that a memory which knows nothing does not pass.
    """
    secret, other_secret = rng.sample(block.values, 2)
    value, other_value = rng.sample(kept.values, 2)
    first = _tell(person, rng.choice(block.scenes["tell"]), block, secret, answers=False)
    lines = [first] if by_wish else [replace(first, source=f"{FORGET_PREFIX}{block.name}")]
    if by_wish:
        what = block.one("what")
        scene = rng.choice(WISHES)
        user = person.fill(scene.user, what=what)
        lines.append(Telling(user, scene.reply, (Fact("forget", block.name),), sentence_with(user, [what])))
    lines.insert(rng.randint(0, len(lines)), _tell(person, rng.choice(kept.scenes["tell"]), kept, value))
    gone = "I no longer know the other one."
    asked = Asked(
        f"Two questions. First: {kept.one('ask')} Second: {block.one('ask')} {BRIEFLY}",
        f"{value.text} | {FORGOTTEN}",
        value.names,
        (*value.names, *secret.names),
        secret.names,
        (
            f"{value.text}. {gone}",
            f"{value.text}. {secret.text}.",
            f"{other_value.text}. {other_secret.text}.",
            f"{other_value.text}. {gone}",
        ),
        max_new_tokens=48,
    )
    rule = KeptAndForgotten(kept.name, block.name)
    name = f"{block.name}-{'wish' if by_wish else 'api'}"
    return Storyline(name, FORGET, tuple(lines), rule, block.cues + kept.cues, lambda _: asked)


def _tell(person: Persona, scene: Scene, block: Block, value: Value, *, answers: bool = True) -> Telling:
    return telling(person, scene, Fact("value", block.name, value.text), {"v": value.text}, answers=answers)


def _taste_and_option(line: str) -> tuple[str, str]:
    taste, _, option = line.partition("|")
    return taste.strip(), option.strip()


def _names(values: list[Value]) -> tuple[str, ...]:
    return tuple(name for value in values for name in value.names)


def _nowadays(question: str) -> str:
    """The question about the present state: "Which car do I drive?" -> "As of today, which car do I drive?"."""
    return f"As of today, {question[:1].lower()}{question[1:]}"

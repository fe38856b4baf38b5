"""The hand-written texts: complete, disjoint from each other, read as their files say."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from benchmarks.recall.multiday.facts import Fact
from benchmarks.recall.multiday.personas import PERSONAS, Persona
from benchmarks.recall.multiday.storylines import telling
from benchmarks.recall.multiday.texts import Block, catalogue, read_blocks, sentence_with
from benchmarks.recall.multiday.wording import contains, normalised

TEXTS = catalogue()
FAMILIES = {
    "attributes": TEXTS.attributes,
    "assistant": TEXTS.assistant,
    "preferences": TEXTS.preferences,
    "collections": TEXTS.collections,
    "events": TEXTS.events,
    "threads": TEXTS.threads,
}
ASKED = [block for family, blocks in FAMILIES.items() if family != "threads" for block in blocks.values()]
SLOTS = {"friend", "colleague", "neighbour", "sibling", "v", "item", "n", "one", "two"}


def messages(block: Block) -> Iterator[str]:
    """Every message and reply of a block, its slots as they stand."""
    for scenes in block.scenes.values():
        for scene in scenes:
            yield scene.user
            yield scene.reply


def everything() -> Iterator[tuple[str, str]]:
    """(name of the block, text) of all that may stand in a history: messages, values, items, slots' fillings."""
    for blocks in FAMILIES.values():
        for block in blocks.values():
            for text in messages(block):
                yield block.name, text
            for key in ("values", "items", "one", "two"):
                for part in block.parts(key):
                    yield block.name, part
            for line in block.lines.get("like", ()):
                yield block.name, line.partition("|")[0]


PLAIN = [(name, text, f" {normalised(text)} ") for name, text in everything()]


def elsewhere(phrase: str, name: str) -> list[str]:
    """Texts of other blocks than `name` in which the phrase stands as whole words."""
    wanted = f" {normalised(phrase)} "
    return [text for other, text, plain in PLAIN if other != name and wanted in plain]


def test_attributes_are_as_many_as_a_life_needs() -> None:
    """At least 25 attributes of six or more values, each told in four ways; at least ten that change."""
    assert len(TEXTS.attributes) >= 25
    for block in TEXTS.attributes.values():
        assert len(block.values) >= 6
        assert len({value.text for value in block.values}) == len(block.values)
        assert len(block.scenes["tell"]) == 4
        assert block.cues and block.parts("near_cue")
        assert block.one("ask").endswith("?") and block.one("near").endswith("?") and block.one("what")
    changing = [block for block in TEXTS.attributes.values() if "change" in block.scenes]
    assert len(changing) >= 10
    assert all(len(b.scenes["change"]) == 2 and len(b.scenes["return"]) == 1 for b in changing)


def test_other_matters_have_values_and_ways_to_tell_them() -> None:
    """Six values at least for what the assistant says and what users like; several ways to tell everything."""
    assert all(len(b.values) >= 6 and len(b.scenes["tell"]) == 2 for b in TEXTS.assistant.values())
    assert all(len(b.lines["like"]) >= 6 and len(b.scenes["tell"]) == 4 for b in TEXTS.preferences.values())
    assert all(len(b.parts("items")) >= 6 and len(b.scenes["tell"]) == 4 for b in TEXTS.collections.values())
    assert all(len(b.scenes["tell"]) == 2 and len(b.parts("label")) > 1 for b in TEXTS.events.values())
    assert len(TEXTS.threads) >= 40
    assert all(len(b.scenes["tell"]) == 3 for b in TEXTS.threads.values())


def test_messages_use_known_slots_and_replies_repeat_no_value() -> None:
    """Braces name slots that exist; a value stands in the message alone, or in the assistant's reply alone."""
    for family, blocks in FAMILIES.items():
        for block in blocks.values():
            for scenes in block.scenes.values():
                for scene in scenes:
                    used = set(re.findall(r"\{(\w+)\}", scene.user + scene.reply))
                    assert used <= SLOTS, (block.name, used)
                    teller, other = (
                        (scene.reply, scene.user) if family == "assistant" else (scene.user, scene.reply)
                    )
                    if family in {"attributes", "assistant", "preferences"}:
                        assert teller.count("{v}") == 1, (block.name, teller)
                    if family == "collections":
                        assert teller.count("{item}") == 1
                        assert teller.count("{n}") == ("amounts" in block.lines)
                    assert not {"{v}", "{item}", "{n}"} & set(re.findall(r"\{\w+\}", other))


@pytest.mark.parametrize("block", ASKED, ids=lambda block: block.name)
def test_each_telling_shows_what_it_is_about(block: Block) -> None:
    """One of a matter's cues stands in each message that tells it, so that its question can find it."""
    for scenes in block.scenes.values():
        for scene in scenes:
            assert any(contains(scene.user, cue) for cue in block.cues), scene.user


def test_no_text_is_about_what_another_block_asks() -> None:
    """A cue stands in its own block alone, a near miss's cue nowhere."""
    for block in ASKED:
        for cue in block.cues:
            assert elsewhere(cue, block.name) == [], (block.name, cue)
        for cue in block.parts("near_cue"):
            assert elsewhere(cue, "") == [], (block.name, cue)


def test_values_stand_nowhere_else() -> None:
    """No value of one matter occurs in another's texts or values, or in a person's name."""
    people = [name for person in PERSONAS for name in names_of(person)]
    for block in [*TEXTS.attributes.values(), *TEXTS.assistant.values()]:
        for value in block.values:
            for alias in value.names:
                assert elsewhere(alias, block.name) == [], (block.name, alias)
                assert not any(contains(name, alias) for name in people), (block.name, alias)


def names_of(person: Persona) -> tuple[str, ...]:
    """All names round a person."""
    return (person.name, person.friend, person.colleague, person.neighbour, person.sister)


def test_the_telling_sentence_holds_the_value_as_a_word_of_its_own() -> None:
    """Every value in every message, and every item with an amount: the span is cut round the slot itself."""
    person = PERSONAS[3]
    for block in TEXTS.attributes.values():
        for scene in [scene for scenes in block.scenes.values() for scene in scenes]:
            for value in block.values:
                line = telling(person, scene, Fact("value", block.name, value.text), {"v": value.text})
                assert contains(line.span, value.text), (line.user, line.span)
                assert not any(contains(line.reply, name) for name in value.names)
    for block in TEXTS.collections.values():
        for scene in block.scenes["tell"]:
            for item in block.parts("items"):
                slots = {"item": item} | ({"n": "13"} if "amounts" in block.lines else {})
                line = telling(person, scene, Fact("item", block.name, item), slots)
                assert all(contains(line.span, slot) for slot in slots.values()), (line.user, line.span)


def test_twelve_people_with_names_of_their_own() -> None:
    """Twelve personas; no name is used twice among them and those round them."""
    names = [name for person in PERSONAS for name in names_of(person)]

    assert len(PERSONAS) == 12
    assert len(set(names)) == len(names)


def test_slots_are_filled_in_good_english() -> None:
    """Articles follow the sound of what comes after, sentences begin large, people are named."""
    person = PERSONAS[0]

    assert person.fill("I took a {v}.", v="americano") == "I took an americano."
    assert person.fill("I took a {v}.", v="ukulele") == "I took a ukulele."
    assert person.fill("As an {v}?", v="cello") == "As a cello?"
    assert person.fill("{item} for me. {item} for you.", item="a chain") == "A chain for me. A chain for you."
    assert (
        person.fill("{sibling} sings: {friend} too.")
        == f"My sister {person.sister} sings: {person.friend} too."
    )
    with pytest.raises(KeyError, match="nobody"):
        person.fill("Ask {nobody}.")


def test_the_sentence_that_tells_is_cut_out_whole() -> None:
    """Titles do not end a sentence; several needles give one stretch; a missing one is an error."""
    text = 'Hello. It is for Dr. Petrov, my dentist. "Really?" Yes, 17 euros. Bye.'

    assert sentence_with(text, ["Petrov"]) == "It is for Dr. Petrov, my dentist."
    assert (
        sentence_with(text, ["Petrov", "17"]) == 'It is for Dr. Petrov, my dentist. "Really?" Yes, 17 euros.'
    )
    assert sentence_with(text, ["Hello"]) == "Hello."
    assert sentence_with(text, ["Bye"]) == "Bye."
    with pytest.raises(ValueError, match="substring"):
        sentence_with(text, ["Smith"])


def test_a_file_is_read_as_its_head_says() -> None:
    """Keys, aliases, marks and replies; text before the first block is a comment."""
    blocks = read_blocks(
        "About this.\n# pet\nvalues: Rex = King | Tom\ncue: dog\n- My {v}.\n> Ah.\n* Now {v}.\n> Oh.\n"
    )
    pet = blocks["pet"]

    assert [(value.text, value.names) for value in pet.values] == [
        ("Rex", ("Rex", "King")),
        ("Tom", ("Tom",)),
    ]
    assert pet.cues == ("dog",)
    assert (pet.scenes["tell"][0].user, pet.scenes["change"][0].reply) == ("My {v}.", "Oh.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# a\n- said\n", "no reply follows"),
        ("# a\n> reply\n", "cannot read the line"),
        ("# a\nsome words\n", "cannot read the line"),
        ("# a\nx: y\n# a\nx: y\n", "two blocks"),
    ],
)
def test_a_file_with_a_mistake_is_refused(text: str, message: str) -> None:
    """A message without a reply, a reply alone, a stray line, a name twice."""
    with pytest.raises(ValueError, match=message):
        read_blocks(text)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Dr. Whitby's twenty-one books", "dr whitby 21 books"),
        ("Brontë, COPPER-otter!", "bronte copper otter"),
        ("5:2 and 5 : 2", "5 to 2 and 5 to 2"),
        ("one hundred and twelve stitches", "112 stitches"),
        ("two thousand three hundred", "2300"),
        ("1,200 euros", "1200 euros"),
        ("don’t", "don't"),
        ("seventy and five", "70 and 5"),
        ("", ""),
    ],
)
def test_texts_are_compared_in_plain_words(text: str, plain: str) -> None:
    """Case, accents, marks, possessives and number words do not matter."""
    assert normalised(text) == plain

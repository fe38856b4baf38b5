"""A seeded history: varied sentences of an everyday log, cut to an exact number of tokens.

The text is plain English with few repeats, so that no cache, no tokenizer and no selection has it easier
than with real notes. Knows a tokenizer, and nothing of memories or models.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from transformers import PreTrainedTokenizerBase

_PEOPLE = (
    "Ada Bram Chiara Dmitri Elif Farid Greta Hiro Ines Jonas Kofi Leila Marek Nadia Oskar Priya Quentin "
    "Rosa Sven Tomoko Ulla Viktor Wanda Xenia Yusuf Zoe"
).split()
_PLACES = (
    "the harbour|the old library|a bakery on Mill Street|the tram depot|the botanical garden|her workshop|"
    "the clinic|a hotel near the station|the rooftop|the archive|the ferry|a barn outside the village|"
    "the school kitchen|the radio studio|the climbing hall|an empty cinema"
).split("|")
_THINGS = (
    "lantern|violin|map of the coast|box of seeds|broken radio|red bicycle|set of keys|letter from abroad|"
    "camera|chess clock|tin of paint|wool blanket|telescope|jar of honey|ledger|brass compass|grey umbrella"
).split("|")
_DEEDS = (
    "repaired|sold|borrowed|painted|lost|found|measured|photographed|wrapped|described|returned|weighed|"
    "hid|traded|cleaned|drew"
).split("|")
_WHY = (
    "because the rain would not stop|although nobody had asked|before the guests arrived|while the bells rang|"
    "to settle an old bet|since the budget was gone|after a long argument|in spite of the forecast|"
    "as the manual demands|so that the children could see it"
).split("|")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def sentences(seed: int) -> Iterator[str]:
    """Sentences without end; the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311  # a text, not a secret
    while True:
        person, other = chance.sample(_PEOPLE, 2)
        thing, place = chance.choice(_THINGS), chance.choice(_PLACES)
        day, why, deed = chance.choice(_DAYS), chance.choice(_WHY), chance.choice(_DEEDS)
        number, hour = chance.randrange(2, 990), f"{chance.randrange(6, 23)}:{chance.randrange(60):02d}"
        yield chance.choice(
            (
                f"On {day} {person} {deed} the {thing} at {place}, {why}.",
                f"At {hour} {other} called from {place} and asked {person} for {number} euros.",
                f"{person} says the {thing} cost {number} euros; {other} {deed} it {why}.",
                f"There were {number} people at {place} when {person} {deed} a {thing}.",
                f"{other} keeps the {thing} at {place}, on shelf {number}, {why}.",
                f"Note for {day}, {hour}: meet {person} and {other} at {place}.",
            )
        )


def text_of(tokenizer: PreTrainedTokenizerBase, tokens: int, seed: int) -> str:
    """Sentences that encode to ``tokens`` tokens, the last one cut short."""
    source, parts, size = sentences(seed), [], 0
    while size < 8 * tokens + 64:  # no word here is longer than eight characters a token
        parts.append(next(source))
        size += len(parts[-1]) + 1
    text = " ".join(parts)
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return text[: offsets[tokens][0]]

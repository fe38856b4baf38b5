"""Twelve people who keep a diary with an assistant: their names, the people round them, how they greet.

Knows nothing of what happens to them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

VOWEL = re.compile(r"[aeiouAEIOU]")
NO_VOWEL_SOUND = ("uku", "euro", "one-", "once")
"""Beginnings that are written with a vowel and spoken without."""


@dataclass(frozen=True)
class Persona:
    """A user: `friend` and `sister` are women and `neighbour` is a man, as the texts take for granted."""

    name: str
    friend: str
    colleague: str
    neighbour: str
    sister: str
    greetings: tuple[str, str, str]
    """For the morning, the afternoon and the evening; "" for somebody who comes to the point."""

    def fill(self, text: str, **slots: str) -> str:
        """`text` with its slots filled, "a" made "an" where the value asks for it, sentences begun large.

        Raises:
            KeyError: a slot that neither the person nor `slots` knows.
        """
        people = {
            "friend": self.friend,
            "colleague": self.colleague,
            "neighbour": self.neighbour,
            "sibling": f"my sister {self.sister}",
        }
        known = people | slots

        def value(match: re.Match[str]) -> str:
            before, name = match.group(1) or "", match.group(2)
            filled = known[name]
            if before.lower() in {"a ", "an "}:
                before = before[0] + ("n " if _sounds_open(filled) else " ")
            starts = not before and _at_start(text[: match.start()])
            return before + (filled[:1].upper() + filled[1:] if starts else filled)

        return re.sub(r"(\b[Aa]n? )?\{(\w+)\}", value, text)

    def greeting(self, hour: int) -> str:
        """What the person says first at that hour."""
        return self.greetings[0 if hour < 11 else 1 if hour < 18 else 2]


def _sounds_open(word: str) -> bool:
    return bool(VOWEL.match(word)) and not word.lower().startswith(NO_VOWEL_SOUND)


def _at_start(before: str) -> bool:
    return not before or bool(re.search(r"[.!?:]\s+$", before) and not before.endswith(": "))


PERSONAS: tuple[Persona, ...] = (
    Persona("Nora", "Ines", "Tomasz", "Mr. Adeyemi", "Maren", ("Morning.", "Hello.", "Good evening.")),
    Persona("Elias", "Katja", "Ruth", "Mr. Bellini", "Hanne", ("", "", "")),
    Persona("Priya", "Leonie", "Gareth", "Mr. Novak", "Anjali", ("Good morning!", "Hi!", "Hi again!")),
    Persona("Duncan", "Morag", "Sanjay", "Mr. Fairweather", "Isla", ("Morning!", "", "Evening.")),
    Persona(
        "Yuki",
        "Clara",
        "Benedikt",
        "Mr. Oduya",
        "Naomi",
        ("Good morning.", "Good afternoon.", "Good evening."),
    ),
    Persona(
        "Teodora", "Vesna", "Luke", "Mr. Hartmann", "Jelena", ("Hello there.", "Hello there.", "Still awake?")
    ),
    Persona("Samuel", "Abigail", "Pilar", "Mr. Jansen", "Esther", ("Hi.", "Hi.", "Hi.")),
    Persona(
        "Brigid",
        "Orla",
        "Matteo",
        "Mr. Kowalski",
        "Sinead",
        ("Good morning to you.", "Me again.", "Me again."),
    ),
    Persona("Rafael", "Lucia", "Wendy", "Mr. Stavros", "Paloma", ("", "Hello.", "Hello.")),
    Persona(
        "Annika", "Greta", "Farid", "Mr. Dubois", "Linnea", ("Morning!", "Hi there!", "One last thing today.")
    ),
    Persona(
        "Kofi",
        "Ama",
        "Heather",
        "Mr. Lundqvist",
        "Efua",
        ("Good morning!", "Good afternoon!", "Good evening!"),
    ),
    Persona("Harriet", "Philippa", "Deniz", "Mr. Osei", "Cordelia", ("", "Hello again.", "Hello again.")),
)

"""Invented people and what may be said of them: statements, questions, values. For tasks that update facts.

Nobody here exists, so a model can know nothing of them beforehand. Knows nothing of serial numbers or prompts.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

_FIRST = (
    "Adra Belan Corvin Delka Edwin Fenna Garrick Hilde Ivor Jessa Kelan Lorna Marek Nella Orrin Petra Quill Rowan "
    "Selma Tavian Una Vesper Wilda Yorick Zelda Anselm Brona Caspar Dorit Emeric Freya Gideon Hester Idris Jarek "
    "Katla Leander Mirel Nestor Odile Piran Rhona Stellan Thora Ulric Verity Wystan Ysolde"
).split()
_STEMS = (
    "Ab Bren Cald Dorn Esk Far Gal Hast Ing Jor Kel Lan Mor Nor Ost Pel Quar Ras Sten Tor Ulm Vel Wex Yar"
).split()
_ENDS = (
    "bury dale edge field gate hart inger kirk lund mere nock oway pike quist rick sby thorpe wold".split()
)


@dataclass(frozen=True)
class Relation:
    """One thing that is true of a person: how it is stated and asked, and the values it can have."""

    statement: str
    question: str
    values: tuple[str, ...]

    def stated(self, who: str, value: str) -> str:
        """The fact as a sentence."""
        return self.statement.format(who=who, value=value)

    def asked(self, who: str) -> str:
        """The question whose answer is the value."""
        return self.question.format(who=who)


RELATIONS: tuple[Relation, ...] = tuple(
    Relation(statement, question, tuple(values.split("|")))
    for statement, question, values in (
        (
            "{who} works as a {value}.",
            "what does {who} work as?",
            (
                "baker|carpenter|nurse|pilot|plumber|librarian|gardener|welder|surgeon|tailor|dentist|teacher|"
                "beekeeper|translator|watchmaker|locksmith"
            ),
        ),
        (
            "{who} lives in the city of {value}.",
            "in which city does {who} live?",
            (
                "Aldermoor|Bexcombe|Carrowfell|Dunmarsh|Elverton|Farrowick|Glenhollow|Harkstead|Inverley|Jossmere|"
                "Kelbury|Lornwick|Marrowby|Netherlow|Oxenholt|Pellmouth"
            ),
        ),
        (
            "{who} plays the {value}.",
            "which instrument does {who} play?",
            (
                "violin|trumpet|clarinet|harp|accordion|bassoon|mandolin|piano|cello|oboe|banjo|trombone|flute|organ|"
                "saxophone|tambourine"
            ),
        ),
        (
            "{who} is associated with the sport of {value}.",
            "which sport is {who} associated with?",
            (
                "archery|badminton|cricket|fencing|handball|judo|rowing|rugby|sailing|skiing|snooker|squash|surfing|"
                "tennis|volleyball|wrestling"
            ),
        ),
        (
            "{who} speaks the language of {value}.",
            "which language does {who} speak?",
            (
                "Basque|Catalan|Danish|Estonian|Finnish|Greek|Hungarian|Icelandic|Japanese|Korean|Latvian|Maltese|"
                "Norwegian|Polish|Romanian|Swahili"
            ),
        ),
        (
            "{who} is employed by {value}.",
            "which company employs {who}?",
            (
                "Amberline Freight|Birchwood Paper|Cobalt Ferries|Driftwood Press|Everglow Lamps|Foxfire Tools|"
                "Gullwing Air|Highmoor Dairy|Ironbark Mills|Juniper Textiles|Kingfisher Boats|Larkspur Seeds|"
                "Moonstone Glass|Northgate Rail|Oakhurst Bank|Pinecrest Cement"
            ),
        ),
        (
            "The favourite dish of {who} is {value}.",
            "what is the favourite dish of {who}?",
            (
                "barley risotto|cabbage rolls|duck curry|fish stew|goat cheese tart|lentil soup|mushroom pie|noodle salad|"
                "onion soup|pea porridge|roast pheasant|spinach dumplings|stuffed peppers|turnip gratin|veal goulash|"
                "walnut bread"
            ),
        ),
        (
            "The pet of {who} is a {value}.",
            "what kind of animal is the pet of {who}?",
            (
                "tortoise|parrot|rabbit|hedgehog|hamster|goldfish|canary|ferret|gecko|donkey|poodle|pigeon|lizard|goose|"
                "magpie|chinchilla"
            ),
        ),
        (
            "The front door of {who} is painted {value}.",
            "what colour is the front door of {who}?",
            (
                "amber|beige|crimson|emerald|indigo|ivory|lavender|lilac|maroon|ochre|olive|purple|scarlet|silver|"
                "turquoise|yellow"
            ),
        ),
        (
            "{who} is a member of the {value}.",
            "which club is {who} a member of?",
            (
                "Badger Society|Chess Circle|Dahlia Club|Evening Choir|Fossil League|Glider Club|Hikers' Union|"
                "Kite Association|Lantern Guild|Orchid Society|Puppet Theatre|Quilting Bee|Rocket Club|Sundial Trust|"
                "Tide Watchers|Winter Swimmers"
            ),
        ),
    )
)
"""No value contains another of its relation."""


def person(chance: random.Random) -> str:
    """An invented name."""
    return f"{chance.choice(_FIRST)} {chance.choice(_STEMS)}{chance.choice(_ENDS)}"


def subject(chance: random.Random) -> tuple[str, int]:
    """A person and the index of a relation: one thing that can be true."""
    return person(chance), chance.randrange(len(RELATIONS))

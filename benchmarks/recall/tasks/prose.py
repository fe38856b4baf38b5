"""Our own essays: seeded sentences about old trades, without end, to hide a needle in.

RULER and the needle-in-a-haystack test use Paul Graham's essays, which this benchmark does not ship: the sentences
below were written for it, and their slots are filled with one trade an essay, so that a paragraph keeps to its
subject and long texts hardly repeat. Holds no digits and no town names, so no sentence can be taken for a needle.
Knows nothing of needles, tokens or tasks.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

_FIELDS = ("doing", "worker", "thing", "stuff", "tool", "place", "fault")

_TRADES: tuple[dict[str, str], ...] = tuple(
    dict(zip(_FIELDS, line.split("|"), strict=True))
    for line in (
        "bookbinding|binder|spine|calfskin|bone folder|bindery|a cockled page",
        "building dry stone walls|waller|wall|fieldstone|walling hammer|hillside|a running joint",
        "keeping bees|beekeeper|hive|wax|smoker|orchard|a restless queen",
        "baking rye bread|baker|loaf|sourdough|peel|bakehouse|a sunken crust",
        "tuning pianos|tuner|string|felt|tuning lever|concert hall|a false beat",
        "drawing maps|cartographer|chart|vellum|dividers|drawing office|a drifting coastline",
        "grinding lenses|lens grinder|lens|crown glass|lapping plate|workshop|a wandering focus",
        "dyeing wool|dyer|skein|indigo|copper vat|dye house|an uneven shade",
        "forging hinges|smith|hinge|wrought iron|set hammer|forge|a cold shut",
        "repairing clocks|clockmaker|movement|brass|mainspring winder|back room|a worn pivot",
        "weaving willow baskets|weaver|basket|osier|bodkin|withy shed|a loose rim",
        "rowing a ferry|ferryman|boat|larch planking|boathook|landing stage|a weeping seam",
        "casting bells|founder|bell|bell metal|strickle board|foundry|a dull voice",
        "pruning vines|vintner|cane|rootstock|billhook|terrace|a bleeding cut",
        "setting type|compositor|forme|lead type|composing stick|printing house|a river of white",
        "blowing glass|glassblower|goblet|molten glass|pontil rod|glasshouse|a trapped seed",
        "thatching roofs|thatcher|ridge|water reed|leggett|farmyard|a sagging eave",
        "carving spoons|carver|bowl|green birch|hook knife|woodland camp|a split grain",
        "charting the tides|harbour clerk|tide table|ledger paper|tide staff|harbour office|a storm surge",
        "making violins|luthier|belly|spruce|thumb plane|attic workshop|a wolf note",
        "growing pears on walls|gardener|cordon|grafting wood|pruning knife|kitchen garden|a canker",
        "cutting stencils|printer|stencil|oiled card|swivel knife|print room|a broken bridge",
        "keeping a lighthouse|keeper|lamp|mantle gauze|brass wick trimmer|lantern room|a sooted pane",
        "mending nets|netmaker|mesh|tarred twine|netting needle|quay|a slipped knot",
    )
)
"""One essay's subject each; every slot of a sentence is filled from one of these."""

_SENTENCES = tuple(
    line.strip()
    for line in """
    People who have never tried {doing} think of it as a matter of patience.
    It is a matter of attention, which is patience with its eyes open.
    A good {worker} does not hurry, and does not linger either.
    The first {thing} I ever made was so bad that I kept it, and it still hangs above my door.
    You learn the {tool} before you learn the {stuff}, and you learn both before you learn to stop.
    There is a moment, usually {when}, when the {stuff} seems to decide for itself what it will become.
    What looks like skill from outside is mostly the memory of having been wrong.
    The old {worker} who taught me spoke {how} and corrected me by doing the thing again.
    Nobody ever warned me about {fault}; I had to meet it in my own work.
    If you ask what a {tool} is for, you get a different answer from everybody in the {place}.
    I used to believe that the {thing} mattered and that the hours did not.
    Now I suspect that the hours were the point and the {thing} was their receipt.
    There are books about {doing}, and most of them were written by people who had stopped.
    A {worker} without a {tool} is merely a person with opinions.
    Cheap {stuff} teaches you nothing, because every mistake can be blamed on it.
    Good {stuff} is unforgiving, and that is what makes it good.
    The {place} smells different {when}, and regular visitors can tell the hour by it.
    It took me years to notice that the quiet people were getting better and the loud ones were not.
    Most advice about {doing} is a description of somebody's temperament.
    You can hide {fault} from a customer, but you cannot hide it from the next {worker}.
    We like to say that practice makes perfect, although practice mostly makes permanent.
    A visitor once asked why we do not simply buy a machine for {doing}.
    The machine exists, it works well, and it makes a {thing} that nobody would ever repair.
    To repair a {thing} is to have a conversation with whoever made it.
    Sometimes the answer you hear in that conversation is rather rude.
    My neighbour says that {doing} is a way of being alone without being lonely.
    I have seen a whole {place} fall silent because somebody was about to make one cut.
    There is no prize for using the {tool} more often than you need to.
    When the work goes well you forget the {tool} entirely, as you forget your own hands.
    When it goes badly, the {tool} seems to weigh as much as a door.
    The {stuff} came from a merchant who knew less about it than he pretended and more than we did.
    He sold it {how}, and never twice at the same price.
    It is tempting to think of tradition as a rule, when it is really a list of accidents that turned out well.
    Every generation of workers improves the {tool} a little and the story about it a great deal.
    The difference between a fair {thing} and a fine one cannot be photographed.
    You feel it {when}, when the light is poor and your fingers have to do the looking.
    Some problems are solved by thinking, others by sleeping, and {fault} by starting again.
    I asked three people how to avoid {fault}, and they agreed on nothing except that I had asked too late.
    A beginner fears ruining the {stuff}; an expert fears wasting the afternoon.
    The best {worker} I know keeps a drawer of failures and shows it to every apprentice.
    She opens it {how}, without any comment, and goes back to her bench.
    There is a kind of pride that helps the work, and a larger kind that gets in its way.
    When the {place} was sold, nobody could agree what to do with the unfinished pieces.
    In the end each of us took one home, and each of us chose the one with the worst mistake.
    I do not think that {doing} makes anybody wise, but it does make certain kinds of foolishness expensive.
    The trouble with explaining a craft is that the words arrive long after the hands have left.
    Children understand the {tool} at once, since nobody has told them yet that it is difficult.
    A customer wants a {thing}; what he remembers is how he was spoken to in the {place}.
    The weather gets into the {stuff} whatever you do, so you may as well invite it in.
    After a long winter the {stuff} behaves like a guest who has forgotten the house.
    Doing the same thing every day is dull only if you believe that it is the same thing.
    One learns to listen for {fault} the way a parent listens for a sound from the next room.
    It would be easier to admire the past if it had kept better notes.
    What we call talent may only be the ability to be bored by the right things.
    A {thing} that is finished too early looks nervous, and one that is finished too late looks tired.
    I once spent a week on a {thing} and an hour on its box, and only the box was praised.
    Nothing in the {place} was bought new except the kettle, and the kettle was the first thing to break.
    There are days when {doing} seems like a fine excuse not to answer letters.
    There are other days when the letters look easier.
    The apprentice swept the floor {how}, found what the rest of us had lost, and said nothing about it.
    Whoever invented the {tool} must have been both lazy and very clever, which is a happy combination.
    If {stuff} were scarce we should probably call all of this an art.
    You may copy a master's gestures for years before you notice that the gestures were not the important part.
    Most of what I know about {doing} I learned from watching other people put things away.
    A bench tells you more about a {worker} than a signature does.
    In a good {place} the shelves are arranged by use and the conversations by season.
    It is hard to be vain in front of {fault}.
    Perhaps that is why so many of us return {when}, when there is nothing urgent to be done.
    """.strip().splitlines()
)
"""Sentences with slots, in our own words."""

_WHEN = (
    "early in the morning|towards evening|on the first cold day of the year|just before the lamps are lit|"
    "in the slow weeks after harvest|when the rain sets in|while the others are at lunch|late on a summer night|"
    "at the end of a long week|when the shutters are half closed"
).split("|")
_HOW = (
    "quietly|with great courtesy|without looking up|rather slowly|in half sentences|with a kind of cheerful gloom|"
    "as if it were nothing|with one eyebrow raised|very gently|in a voice made for larger rooms"
).split("|")
_JOIN = (
    "||||As far as I can tell, |It seems to me that |My teacher used to say that |In other words, |"
    "On reflection, |They say in the trade that "
).split("|")
"""What a sentence may open with; mostly nothing."""

ESSAY_SENTENCES = 14
"""Sentences about one trade before the next begins."""


def sentences(chance: random.Random) -> Iterator[str]:
    """Sentences without end, a paragraph's worth about one trade after another; drawn from `chance`."""
    while True:
        trade = chance.choice(_TRADES)
        for pattern in chance.sample(_SENTENCES, ESSAY_SENTENCES):
            opening = chance.choice(_JOIN)
            words = pattern.format(when=chance.choice(_WHEN), how=chance.choice(_HOW), **trade)
            yield opening + (_uncapital(words) if opening else words)


def _uncapital(sentence: str) -> str:
    """The sentence as it reads after an opening: its first letter small, but for the word I."""
    return sentence if sentence.startswith(("I ", "I'")) else sentence[0].lower() + sentence[1:]

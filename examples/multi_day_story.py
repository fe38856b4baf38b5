"""Six days with an assistant: what is said, what is read, and the ten facts asked for on the last day.

Plain data. The facts are told in passing on the first two days, each in a message that asks for something
else; a fact counts as recalled when its ``key`` stands in the answer, upper or lower case.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parent / "data"
SYSTEM = "You are the user's personal assistant. Answer in one short sentence."


@dataclass(frozen=True)
class Say:
    """The user says something, and the assistant answers."""

    text: str


@dataclass(frozen=True)
class Read:
    """The assistant reads a file without answering."""

    path: Path


@dataclass(frozen=True)
class Day:
    """One day: when, and what happens."""

    date: str
    """ISO 8601; passed to the memory as ``at=``."""
    events: tuple[Say | Read, ...]


@dataclass(frozen=True)
class Fact:
    """Something told early and asked for on the last day."""

    key: str
    """What an answer must contain. It also stands word for word in the message that told it."""
    question: str


FACTS = (
    Fact("Marzipan", "What is my dog called?"),
    Fact("Ljubljana", "Which city did I move to?"),
    Fact("7294", "What is the code of my bike lock?"),
    Fact("sesame", "What am I allergic to?"),
    Fact("Ottilie", "What is the name of my sister?"),
    Fact("16:45", "At what time is my dentist appointment?"),
    Fact("piano tuner", "What is my job?"),
    Fact("Halvorsen", "What is the name of the plumber who comes to my flat?"),
    Fact("318", "Which locker do I take at the swimming pool?"),
    Fact("Patagonia", "Which trip am I saving money for?"),
)

DAYS = (
    Day(
        "2026-03-02T09:00",
        (
            Say("Good morning! It is cold and raining. What would be a good breakfast for a day like this?"),
            Say(
                "I just came in from the rain with my dog Marzipan, and my leather shoes are soaked. "
                "How do I dry them without ruining them?"
            ),
            Say(
                "I moved to Ljubljana three weeks ago, and half of my boxes are still packed. "
                "Which room should one unpack first?"
            ),
            Say(
                "Before I lose the note: the code of my bike lock is 7294. "
                "By the way, how often should a bicycle chain be oiled?"
            ),
            Say(
                "My colleagues want to order lunch together on Friday. I am allergic to sesame, "
                "so I have to be careful. Which kind of kitchen would you choose?"
            ),
            Say(
                "My sister Ottilie plays the cello and gives a concert in May. "
                "What small present do musicians like?"
            ),
        ),
    ),
    Day(
        "2026-03-03T08:30",
        (
            Say(
                "I have a dentist appointment on 19 March at 16:45, and I am a bit nervous about it. "
                "How does one stay calm in the chair?"
            ),
            Say(
                "I work as a piano tuner, so in the evening my ears are tired. "
                "What quiet hobby would you suggest?"
            ),
            Say(
                "Tomorrow Mr Halvorsen, the plumber, comes to my flat to repair the kitchen tap. "
                "What should I clear away beforehand?"
            ),
            Say(
                "At the swimming pool I always take locker 318, because it is close to the showers. "
                "How many lengths should a beginner swim?"
            ),
            Say(
                "I am saving money for a trip to Patagonia, forty euros a week. "
                "How do people manage to stick to such a plan?"
            ),
        ),
    ),
    Day(
        "2026-03-05T19:15",
        (
            Say(
                "I was given a small plot in an allotment society. Here comes their handbook; please read it."
            ),
            Read(DATA / "allotment_handbook.txt"),
            Say("According to the handbook, when is the pump switched on?"),
        ),
    ),
    Day(
        "2026-03-09T18:40",
        (
            Say(
                "Please help me with this letter to the society: 'Dear committee, thank you for the warm welcome "
                "last Saturday. I have walked the plot twice, once in the sun and once in the rain, and I think "
                "I understand now why everybody told me to begin with the compost. I should like to ask two things. "
                "May I put up a small shed with a gutter and a barrel on the north side, where it throws no shade "
                "on anybody? And is there somebody who would show me how to prune the old quince, which seems not "
                "to have been touched for years? I am glad to help on the work day in return. With kind regards.' "
                "Is the tone right?"
            ),
            Say(
                "Listen to what happened today. I was digging along the fence when the spade hit something hard, "
                "and I thought of treasure, of course. It was an old enamel bath, buried up to the rim and full of "
                "earth, with the roots of a currant bush in it. Somebody must have used it as a pond a long time "
                "ago. An old man came by with a barrow and told me that his aunt had kept goldfish in it, and that "
                "as a boy he had fallen into it twice, both times in his Sunday clothes. We tried to lift it "
                "together and gave up after ten minutes. Then a third neighbour came, and a fourth, and we tied a "
                "rope around it and pulled it out like a boat. Now it stands beside the shed, and everybody has an "
                "opinion about what I should do with it: one wants a pond again, one wants to plant mint in it, "
                "because mint runs away otherwise, and one says that it is the best thing for washing potatoes. "
                "What would you do with it?"
            ),
            Say("Which vegetables forgive a beginner the most mistakes?"),
            Say("How deep should I plant garlic?"),
        ),
    ),
    Day(
        "2026-03-11T20:05",
        (
            Say("I joined a hiking circle as well. This is the report of their last walk."),
            Read(DATA / "walk_report.txt"),
            Say("How many people went on the walk?"),
            Say("What should I pack for an easy walk of four hours in spring?"),
            Say(
                "I will take soup in a flask: two onions, four carrots, a piece of celery, a litre and a half of "
                "broth, a handful of barley, pepper, and a spoon of vinegar at the end. The onions go in first, "
                "over a low flame, until they are soft and golden; then the carrots and the celery, cut small; "
                "then the barley and the broth, and it simmers with the lid on for forty minutes. "
                "What would make it more filling?"
            ),
            Say("How does one keep bread fresh for three days?"),
            Say(
                "One more thing for today. The circle asks new members for a few lines about themselves, to be read "
                "out before the walk. I have written: 'I walk slowly and stop often, mostly because of birds, whose "
                "names I do not know. I like paths that go through villages, and I like to arrive somewhere where "
                "there is soup. I have no sense of direction, so please do not put me in front. In my rucksack you "
                "will always find a spare pair of dry socks, a pack of cards, and much too much string. I look "
                "forward to the reed lake.' Is that too short?"
            ),
        ),
    ),
    Day("2026-03-16T07:45", ()),
)
"""The last day has no events of its own: it is when the questions are asked."""

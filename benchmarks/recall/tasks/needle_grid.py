"""The needle-in-a-haystack grid: one natural fact in essays, depth by length (Kamradt's test).

His needle is "The best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a sunny day."; here
town and deeds are invented and drawn for each history, so that nothing can be known beforehand, and the essays are
ours. His prompt is two user messages, the text and then the question, so it maps to a piece and a question as it
stands; nothing is announced. He lets a model judge; here the score is the share of the fact's two halves that the
answer contains. In history i the fact lies at depth i modulo `depths` of as many even depths, and the question's
kind says which: `depth 000%` before the first sentence, `depth 100%` behind the last.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.recall.tasks.fitted import Asked, Draft, FittedTask, Place, Wording
from benchmarks.recall.tasks.haystacks import EssayHaystack, with_needles
from benchmarks.recall.tasks.judges import share_of_answers
from benchmarks.recall.tasks.lengths import spread

TOWNS = (
    "Aldermoor|Bexcombe|Carrowfell|Dunmarsh|Elverton|Farrowick|Glenhollow|Harkstead|Inverley|Jossmere|Kelbury|"
    "Lornwick|Marrowby|Netherlow|Oxenholt|Pellmouth|Quenford|Ravensea|Stallbridge|Tarnley|Ulverwick|Vexford|"
    "Wetherlea|Yarrowdale"
).split("|")
TREATS = (
    "plum dumpling|smoked trout|cheese pasty|bowl of nettle soup|ginger bun|roast chestnut|blackberry tart|"
    "pickled egg|honey waffle|mushroom pie|spiced crumpet|lentil stew|peach roll|salted pretzel|"
    "pear fritter|slice of poppy cake"
).split("|")
SEATS = (
    "Lantern Square|the Weavers' Arcade|Marigold Gardens|the Old Customs House|Swallow Pier|the Tanners' Steps|"
    "Cathedral Green|the Salt Exchange|Harrier Bridge|the Glass Pavilion|Willow Quay|the Clockmakers' Court|"
    "Minster Hill|the Corn Gallery|Juniper Walk|the Pilots' Tower"
).split("|")
NEEDLE = "The best thing to do in {town} is eat a {treat} and sit in {seat} on a sunny day."
_WORDING = Wording(
    before="",
    after=(
        "What is the best thing to do in {town}? "
        "Don't give information outside the document or repeat your findings"
    ),
    max_new_tokens=48,
)


@dataclass(frozen=True)
class FactAtDepth:
    """One fact at one of `depths` even depths of an essay."""

    name: str = "needle_grid"
    depths: int = 10

    def draft(self, place: Place, units: int) -> Draft:
        """A context of `units` sentences and the fact."""
        hay = EssayHaystack()
        lines = hay.lines(place.chance("hay"), units)
        chance = place.chance("fact")
        town, treat, seat = chance.choice(TOWNS), chance.choice(TREATS), chance.choice(SEATS)
        needle = NEEDLE.format(town=town, treat=treat, seat=seat)
        depths = min(self.depths, place.count)
        level = place.index % depths
        where = spread(range(units + 1), depths)[level]
        asked = Asked(
            slots={"town": town},
            answers=(treat, seat),
            evidence=(needle,),
            kind=f"depth {round(100 * level / (depths - 1)) if depths > 1 else 50:03d}%",
        )
        return Draft(with_needles(lines, hay.joint, [needle], [where]), (asked,))


def needle_grid() -> FittedTask:
    """Ten depths."""
    return FittedTask("needle_grid", FactAtDepth(), _WORDING, share_of_answers)

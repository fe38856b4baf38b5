"""Many magic numbers spread through noise, each asked for on its own: multi-needle recall, one history, many questions.

This project's own form: N needles of RULER's sentence, one at a random line of each Nth of the noise, asked one by
one with RULER's question and answer prefix after the whole text, nothing announced. All needles look alike, so a
memory that picks the right few blocks must tell them apart by their keys. The other needles' values are the wrong
choices to rank against.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, pairwise

from benchmarks.recall.tasks.fitted import Draft, FittedTask, Place, Wording
from benchmarks.recall.tasks.haystacks import NoiseHaystack, with_needles
from benchmarks.recall.tasks.judges import share_of_answers
from benchmarks.recall.tasks.lengths import need
from benchmarks.recall.tasks.niah import NUMBERS, ONE_ANSWER, Needle, ask_for_one
from benchmarks.recall.tasks.words import unlike, word_key

_WORDING = Wording(before="", after=ONE_ANSWER.after, max_new_tokens=32)


@dataclass(frozen=True)
class SpreadNeedles:
    """`needles` needles, one in each of as many equal slices of the noise, every one asked for."""

    name: str
    needles: int

    def draft(self, place: Place, units: int) -> Draft:
        """A context of `units` lines of noise and the needles."""
        hay = NoiseHaystack()
        lines = hay.lines(place.chance("hay"), units)
        needles = self._drawn(place)
        places = self._places(units, place)
        choice = place.chance("choices")
        values = [needle.value for needle in needles]
        asked = tuple(
            ask_for_one(
                needle, choice.sample([v for v in values if v != needle.value], min(3, len(values) - 1))
            )
            for needle in needles
        )
        return Draft(with_needles(lines, hay.joint, [needle.text for needle in needles], places), asked)

    def _drawn(self, place: Place) -> list[Needle]:
        keys = islice(unlike(place.chance("keys"), word_key), self.needles)
        values = unlike(place.chance("values"), NUMBERS.draw)
        return [Needle(key, next(values), NUMBERS.kind) for key in keys]

    def _places(self, lines: int, place: Place) -> list[int]:
        """One random line in each slice, ascending."""
        need(range(lines), self.needles)
        chance = place.chance("places")
        edges = [index * lines // self.needles for index in range(self.needles + 1)]
        return [chance.randrange(start, stop) for start, stop in pairwise(edges)]


def many_needles() -> FittedTask:
    """25 needles and as many questions a history."""
    return FittedTask("many_needles", SpreadNeedles("many_needles", 25), _WORDING, share_of_answers)


def five_keys() -> FittedTask:
    """Five needles with five names at five depths: for one very long history."""
    return FittedTask("five_keys", SpreadNeedles("five_keys", 5), _WORDING, share_of_answers)

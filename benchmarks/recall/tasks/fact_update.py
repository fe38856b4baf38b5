"""Facts that change, newest wins: in the manner of MemoryAgentBench's FactConsolidation (arXiv 2507.05257).

Numbered facts about invented people; some are stated again later with another value, and the larger serial number
is the newer fact. Of the 25 questions a history, 20 ask for facts with two or three versions (kind `updated`), 5 for
facts stated once (kind `stated once`): what the model loses between the two is the update's share. The memory must
bring the newest version although the older ones look the same. Two wordings of the same facts:

- `fact_consolidation` has the published words (single-hop, long-context agent, ten new tokens). Small chat models
  answer them with the prompt's own example or spend the ten tokens on an opening.
- `fact_update` states the rule before the facts and asks a plain question, with 32 new tokens.

The facts are ours; published ones contradict the real world and come in chunks of 4,096 tokens, each in a chat turn,
here they are one piece. The judge is the published `substring_exact_match`; the older values stand in `must_not`,
which it does not look at, and among the choices to rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from benchmarks.recall.tasks.facts import RELATIONS, subject
from benchmarks.recall.tasks.fitted import Asked, Draft, FittedTask, Place, Wording
from benchmarks.recall.tasks.judges import contains_answer
from benchmarks.recall.tasks.words import unlike

_PUBLISHED = Wording(
    before="The following context is the facts I have learned: \n",
    after=(
        "Pretend you are a knowledge management system. Each fact in the knowledge pool is provided with a serial "
        "number at the beginning, and the newer fact has larger serial number. \n You need to solve the conflicts "
        "of facts in the knowledge pool by finding the newest fact with larger serial number. You need to answer a "
        "question based on this rule. You should give a very concise answer without saying other words for the "
        "question **only** from the knowledge pool you have memorized rather than the real facts in real world. "
        "\n\nFor example:\n\n [Knowledge Pool] \n\n Question: Based on the provided Knowledge Pool, what is the "
        "name of the current president of Russia? \nAnswer: Donald Trump \n\n Now Answer the Question: Based on "
        "the provided Knowledge Pool, {question} \nAnswer:"
    ),
    max_new_tokens=10,
)
_PLAIN = Wording(
    before=(
        "These are numbered facts. Where two facts contradict each other, the one with the larger number is newer "
        "and right.\n"
    ),
    after="According to the newest facts, {question}",
    max_new_tokens=32,
)


@dataclass(frozen=True)
class Told:
    """One thing about one person and the values it had, oldest first."""

    who: str
    relation: int
    values: tuple[str, ...]

    @property
    def statements(self) -> list[str]:
        """A sentence for each value, oldest first."""
        return [RELATIONS[self.relation].stated(self.who, value) for value in self.values]


@dataclass(frozen=True)
class NumberedFacts:
    """Facts in a list with serial numbers from 0; `updated` of them change and `once` do not, all are asked for."""

    name: str = "fact_update"
    updated: int = 20
    once: int = 5

    def draft(self, place: Place, units: int) -> Draft:
        """A list of `units` facts that are not asked for and, among them, those that are."""
        subjects = unlike(place.chance("subjects"), subject)
        chance = place.chance("values")
        asked = [
            Told(who, relation, tuple(chance.sample(RELATIONS[relation].values, versions)))
            for versions, (who, relation) in zip(self._versions(place), subjects, strict=False)
        ]
        fillers = [
            RELATIONS[relation].stated(who, chance.choice(RELATIONS[relation].values))
            for who, relation in islice(subjects, units)
        ]
        order = [told for told in asked for _ in told.values]
        place.chance("order").shuffle(order)
        places = sorted(place.chance("places").choices(range(units + 1), k=len(order)))
        lines, serials = _merged(fillers, order, places)
        context = "\n".join(f"{serial}. {line}" for serial, line in enumerate(lines))
        return Draft(context, tuple(self._question(place, told, serials[told][-1]) for told in asked))

    def _versions(self, place: Place) -> list[int]:
        """How many values each asked fact has: two, or three for a quarter of the updated; one for the rest."""
        chance = place.chance("versions")
        return [chance.choice((2, 2, 2, 3)) for _ in range(self.updated)] + [1] * self.once

    def _question(self, place: Place, told: Told, serial: int) -> Asked:
        relation = RELATIONS[told.relation]
        *older, newest = told.values
        unsaid = [value for value in relation.values if value not in told.values]
        wrong = [*reversed(older), *place.chance(f"choices {told.who}").sample(unsaid, 3)][:3]
        return Asked(
            slots={"question": relation.asked(told.who)},
            answers=(newest,),
            evidence=(f"{serial}. {told.statements[-1]}",),
            must_not=tuple(older),
            choices=(newest, *wrong),
            kind="updated" if older else "stated once",
        )


def _merged(
    fillers: list[str], order: list[Told], places: list[int]
) -> tuple[list[str], dict[Told, list[int]]]:
    """All lines, the next version of `order[i]` before filler `places[i]`; and each told fact's line numbers."""
    lines: list[str] = []
    serials: dict[Told, list[int]] = {told: [] for told in order}
    start = 0
    for told, where in zip(order, places, strict=True):
        lines += fillers[start:where]
        start = where
        serials[told].append(len(lines))
        lines.append(told.statements[len(serials[told]) - 1])
    return [*lines, *fillers[start:]], serials


def fact_update() -> FittedTask:
    """20 updated facts and 5 that were stated once, asked plainly."""
    return FittedTask("fact_update", NumberedFacts(), _PLAIN, contains_answer)


def fact_consolidation() -> FittedTask:
    """The same facts in the published words."""
    return FittedTask("fact_consolidation", NumberedFacts(), _PUBLISHED, contains_answer)

"""What messages say, as facts, and what follows from them: each question's answer without a model.

A rule looks at dated facts and gives the answer, or None where it does not follow. The checks of
`validity.py` take facts away and ask again. Knows nothing of texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, Protocol

FORGOTTEN = "(forgotten)"
"""What a rule answers for a thing that was told and then forgotten."""


@dataclass(frozen=True)
class Fact:
    """One thing a message says: a subject's value, an item of a collection, an event, or a wish to forget."""

    kind: Literal["value", "item", "event", "forget"]
    subject: str
    value: str = ""
    amount: int = 0


@dataclass(frozen=True)
class Dated:
    """A fact and the day it was told on."""

    day: date
    fact: Fact


class Rule(Protocol):
    """What must be known for a question to be answered, and how."""

    def answer(self, known: Sequence[Dated]) -> str | None:
        """The answer that follows from `known` (in order of telling); None: none does."""
        ...


@dataclass(frozen=True)
class Newest:
    """The last value told of a subject, unless it was to be forgotten afterwards."""

    subject: str

    def answer(self, known: Sequence[Dated]) -> str | None:
        """The newest value."""
        found = None
        for dated in known:
            if dated.fact.subject == self.subject and dated.fact.kind in {"value", "forget"}:
                found = dated.fact.value if dated.fact.kind == "value" else None
        return found


@dataclass(frozen=True)
class Suits:
    """Which option suits the taste told of a subject."""

    subject: str
    options: Mapping[str, str]
    """Taste -> option."""

    def answer(self, known: Sequence[Dated]) -> str | None:
        """The option for the newest taste."""
        taste = Newest(self.subject).answer(known)
        return None if taste is None else self.options.get(taste)


@dataclass(frozen=True)
class Count:
    """How many items of a collection were told."""

    subject: str

    def answer(self, known: Sequence[Dated]) -> str | None:
        """The number of different items."""
        items = {dated.fact.value for dated in known if _is_item(dated, self.subject)}
        return str(len(items)) if items else None


@dataclass(frozen=True)
class Sum:
    """What the amounts of a collection come to."""

    subject: str

    def answer(self, known: Sequence[Dated]) -> str | None:
        """The sum over all items told."""
        amounts = [dated.fact.amount for dated in known if _is_item(dated, self.subject)]
        return str(sum(amounts)) if amounts else None


@dataclass(frozen=True)
class Most:
    """Which of the items that the question names has the largest amount."""

    subject: str
    items: Sequence[str]

    def answer(self, known: Sequence[Dated]) -> str | None:
        """The item; None unless every one's amount is known."""
        amounts = {dated.fact.value: dated.fact.amount for dated in known if _is_item(dated, self.subject)}
        if not set(self.items) <= set(amounts):
            return None
        return max(self.items, key=lambda item: amounts[item])


@dataclass(frozen=True)
class DaysBetween:
    """How many days lie between two events."""

    first: str
    second: str

    def answer(self, known: Sequence[Dated]) -> str | None:
        """The number of days; None unless both are dated."""
        days = _event_days(known)
        if self.first not in days or self.second not in days:
            return None
        return str(abs((days[self.second] - days[self.first]).days))


@dataclass(frozen=True)
class First:
    """Which of some events came first."""

    events: Sequence[str]

    def answer(self, known: Sequence[Dated]) -> str | None:
        """The event; None unless all are dated, each on a day of its own."""
        days = _event_days(known)
        if not set(self.events) <= set(days) or len({days[event] for event in self.events}) < len(
            self.events
        ):
            return None
        return min(self.events, key=lambda event: days[event])


@dataclass(frozen=True)
class KeptAndForgotten:
    """Two subjects asked at once, one of which was to be forgotten."""

    kept: str
    forgotten: str

    def answer(self, known: Sequence[Dated]) -> str | None:
        """The kept value and, after a bar, the other one or that it is gone."""
        kept = Newest(self.kept).answer(known)
        other = Newest(self.forgotten).answer(known)
        return None if kept is None else f"{kept} | {FORGOTTEN if other is None else other}"


def _is_item(dated: Dated, subject: str) -> bool:
    return dated.fact.kind == "item" and dated.fact.subject == subject


def _event_days(known: Sequence[Dated]) -> dict[str, date]:
    return {dated.fact.subject: dated.day for dated in known if dated.fact.kind == "event"}

"""The rules: what follows from facts, and that nothing follows from too few."""

from __future__ import annotations

from datetime import date

import pytest

from benchmarks.recall.multiday.facts import (
    FORGOTTEN,
    Count,
    Dated,
    DaysBetween,
    Fact,
    First,
    KeptAndForgotten,
    Most,
    Newest,
    Rule,
    Suits,
    Sum,
)

D1, D2, D3 = date(2026, 1, 5), date(2026, 1, 9), date(2026, 2, 1)


def value(day: date, subject: str, of: str) -> Dated:
    """A value told on a day."""
    return Dated(day, Fact("value", subject, of))


def item(name: str, amount: int = 0) -> Dated:
    """An item of the collection "c"."""
    return Dated(D1, Fact("item", "c", name, amount))


def event(day: date, name: str) -> Dated:
    """An event on a day."""
    return Dated(day, Fact("event", name))


FORGET_A = Dated(D2, Fact("forget", "a"))


@pytest.mark.parametrize(
    ("rule", "known", "answer"),
    [
        (Newest("a"), [value(D1, "a", "x")], "x"),
        (Newest("a"), [value(D1, "a", "x"), value(D2, "a", "y")], "y"),
        (Newest("a"), [value(D1, "a", "x"), value(D2, "a", "y"), value(D3, "a", "x")], "x"),
        (Newest("a"), [value(D1, "a", "x"), FORGET_A], None),
        (Newest("a"), [FORGET_A, value(D3, "a", "x")], "x"),
        (Newest("a"), [value(D1, "b", "x"), event(D1, "a")], None),
        (Newest("a"), [], None),
        (Suits("a", {"x": "X", "y": "Y"}), [value(D1, "a", "y")], "Y"),
        (Suits("a", {"x": "X"}), [], None),
        (Count("c"), [item("p"), item("q"), item("p")], "2"),
        (Count("c"), [value(D1, "c", "x")], None),
        (Sum("c"), [item("p", 3), item("q", 4)], "7"),
        (Sum("c"), [], None),
        (Most("c", ["p", "q"]), [item("p", 3), item("q", 4)], "q"),
        (Most("c", ["p", "q"]), [item("q", 4)], None),
        (DaysBetween("e", "f"), [event(D1, "e"), event(D2, "f")], "4"),
        (DaysBetween("e", "f"), [event(D2, "e"), event(D1, "f")], "4"),
        (DaysBetween("e", "f"), [event(D1, "e")], None),
        (First(["e", "f", "g"]), [event(D3, "e"), event(D1, "f"), event(D2, "g")], "f"),
        (First(["e", "f", "g"]), [event(D3, "e"), event(D1, "f")], None),
        (First(["e", "f"]), [event(D1, "e"), event(D1, "f")], None),
        (
            KeptAndForgotten("b", "a"),
            [value(D1, "a", "x"), value(D1, "b", "y"), FORGET_A],
            f"y | {FORGOTTEN}",
        ),
        (KeptAndForgotten("b", "a"), [value(D1, "a", "x"), value(D1, "b", "y")], "y | x"),
        (KeptAndForgotten("b", "a"), [value(D1, "a", "x")], None),
    ],
)
def test_what_follows(rule: Rule, known: list[Dated], answer: str | None) -> None:
    """Each rule gives its answer from enough, and None from too little."""
    assert rule.answer(known) == answer

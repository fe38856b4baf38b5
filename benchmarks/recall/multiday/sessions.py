"""Where in a history what stands: the days and hours of its sessions, and which session tells what.

Knows storylines by their tellings alone, and no filler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from random import Random

from benchmarks.recall.multiday.storylines import Storyline, Telling

FIRST_DAY = datetime(2026, 1, 5)  # noqa: DTZ001  a diary's clock is local: it has no zone
LATE = ("tonight", "this evening")
MOST_TELLINGS = 4
"""Tellings in one session; the fifth exchange is left to the talk round them."""


class NoRoomError(Exception):
    """The tellings of a history do not fit into its sessions."""


@dataclass(frozen=True)
class Placed:
    """A telling, the storyline it belongs to, and the number of its session."""

    telling: Telling
    storyline: Storyline
    session: int


def session_days(rng: Random, days: int, sessions: int) -> list[int]:
    """The day (from 0) of each session, in order; every day has one, the rest fall on days by chance.

    Raises:
        ValueError: fewer sessions than days.
    """
    if sessions < days:
        raise ValueError(f"{sessions} sessions cannot cover {days} days: ask for at least one a day")
    extra = [rng.randrange(days) for _ in range(sessions - days)]
    return sorted([*range(days), *extra])


def clock(rng: Random, days: Sequence[int], placed: Sequence[Placed], persona: int) -> list[datetime]:
    """When each session begins: increasing, in the evening where what it tells happened this evening."""
    late = {
        found.session
        for found in placed
        if found.telling.dated and any(word in found.telling.user for word in LATE)
    }
    dated = {found.session for found in placed if found.telling.dated}
    times: list[datetime] = []
    start = FIRST_DAY + timedelta(days=7 * persona)
    for session, day in enumerate(days):
        earliest, latest = (20, 22) if session in late else (15, 18) if session in dated else (7, 19)
        # Later sessions of the same day push this one to the front of its hours.
        same_day = sum(1 for other in days if other == day)
        order = session - list(days).index(day)
        width = (latest - earliest) * 60 // same_day
        minute = earliest * 60 + order * width + rng.randrange(width)
        times.append(start + timedelta(days=day, minutes=minute))
    return times


def place(rng: Random, storylines: Sequence[Storyline], days: Sequence[int], usable: int) -> list[Placed]:
    """A session for each telling: those of one storyline in order, in sessions of their own.

    A dated telling opens its session, so a session has one at most, and the first session none. Sessions from
    `usable` on stay free.

    Raises:
        NoRoomError: no assignment was found.
    """
    load = [0] * usable
    openers = set[int]()
    placed: list[Placed] = []
    for storyline in sorted(storylines, key=lambda line: not line.tellings[0].dated):
        chosen = _sessions_for(rng, storyline, days, load, openers)
        for telling, session in zip(storyline.tellings, chosen, strict=True):
            load[session] += 1
            if telling.dated:
                openers.add(session)
            placed.append(Placed(telling, storyline, session))
    return sorted(placed, key=lambda found: (found.session, not found.telling.dated))


def _sessions_for(
    rng: Random, storyline: Storyline, days: Sequence[int], load: Sequence[int], openers: set[int]
) -> list[int]:
    """Sessions for one storyline, in the order of its tellings."""
    count = len(storyline.tellings)
    dated = storyline.tellings[0].dated
    for most in range(1, MOST_TELLINGS + 1):
        free = [
            session
            for session, taken in enumerate(load)
            if taken < most and not (dated and (session == 0 or session in openers))
        ]
        for _ in range(40):
            if len(free) < count:
                break
            chosen = sorted(rng.sample(free, count))
            gaps = [days[later] - days[one] for one, later in pairwise(chosen)]
            if all(gap >= storyline.least_gap for gap in gaps):
                return chosen
    raise NoRoomError(f"{storyline.name}: {count} tellings find no place in {len(load)} sessions")

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
DAYTIME, AFTERNOON, EVENING = (7, 19), (15, 18), (20, 22)
"""Between which hours sessions begin: any, those that say what happened today, or this evening."""
PAUSE = timedelta(minutes=30)
"""At least, between two sessions of a day."""
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
    """The day (from 0) of each session, in order: one a day, on some days two.

    Raises:
        ValueError: fewer sessions than days, or more than two a day.
    """
    if not days <= sessions <= 2 * days:
        raise ValueError(f"{sessions} sessions cannot cover {days} days: ask for one or two a day")
    return sorted([*range(days), *rng.sample(range(days), sessions - days)])


def clock(rng: Random, days: Sequence[int], placed: Sequence[Placed], persona: int) -> list[datetime]:
    """When each session begins: increasing; late in the day where it tells what happened that day or evening."""
    start = FIRST_DAY + timedelta(days=7 * persona)
    dated = {found.session: found.telling.user for found in placed if found.telling.dated}
    times: list[datetime] = []
    for session, day in enumerate(days):
        told = dated.get(session)
        first, last = DAYTIME if told is None else AFTERNOON
        if told is not None and any(word in told for word in LATE):
            first, last = EVENING
        midnight = start + timedelta(days=day)
        earliest = midnight + timedelta(hours=first)
        if times:
            earliest = max(earliest, times[-1] + PAUSE)
        latest = max(midnight + timedelta(hours=last), earliest + PAUSE)
        times.append(earliest + timedelta(minutes=rng.randrange((latest - earliest) // timedelta(minutes=1))))
    return times


def place(rng: Random, storylines: Sequence[Storyline], days: Sequence[int], usable: int) -> list[Placed]:
    """A session for each telling: those of one storyline in order, each on a day of its own.

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

"""Gate 8: the wall clock jumps by years, forwards and backwards, in the middle of a life.

The shim moves what every reader of the wall clock is told: Python, SQLite and the C library, in the whole
process. Nothing but the dates kept for people may differ from a twin's life under a steady clock.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from agentmem.store import DiskHome
from faults import children, shim
from faults.agent_life import Verb, look, opened, verbs
from faults.results import Found
from faults.trees import clone, replace, scratch

YEAR = 365 * 24 * 3600
JUMPS = (10 * YEAR, -10 * YEAR, 3600, -3600, -1)


def clock_jumps(*, lives: int, seed: int, jobs: int) -> Found:
    """So many lives, each under every kind of jump and under random ones."""
    cases = [(seed + life, plan) for life in range(lives) for plan in range(len(JUMPS) + 2)]
    on = "steady, +-10 years, +-1 hour, back 1 s, and a new jump before each verb; one process and reopened"
    return Found(len(cases), children.spread(cases, _tried, jobs), on)


def _tried(case: tuple[int, int]) -> list[str]:
    seed, plan = case
    life = verbs(seed, 8)
    with scratch() as folder:
        opened(folder / "born").close()
        clone(folder / "born", folder / "twin")
        wanted = _lived(folder / "twin", life, [0] * len(life))
        replace(folder / "born", folder / "jumpy")
        try:
            found = _lived(folder / "jumpy", life, _jumps(plan, len(life), seed))
        except Exception as error:  # noqa: BLE001 - nothing may be refused because of the time
            return [f"life {seed}, plan {plan}: {type(error).__name__}: {error}"]
        finally:
            shim.move_clock(0)
    return [] if found == wanted else [f"life {seed}, plan {plan}: it differs from the twin's"]


def _jumps(plan: int, count: int, seed: int) -> list[int]:
    if plan < len(JUMPS):
        return [0] * (count // 2) + [JUMPS[plan]] * (count - count // 2)
    chance = random.Random(seed)
    return [chance.randint(-10 * YEAR, 10 * YEAR) for _ in range(count)]


def _lived(folder: Path, life: list[Verb], jumps: list[int]) -> list[Any]:
    """The life, the agent being opened anew after every third verb, as a restart at another time would."""
    found = []
    memory = opened(folder)
    for number, (verb, jump) in enumerate(zip(life, jumps, strict=True)):
        shim.move_clock(jump)
        if number % 3 == 2:
            memory.close()
            memory = opened(folder)
        verb.act(memory)
        found.append(look(memory, folder))
    assert DiskHome(folder).list()
    memory.close()
    return found

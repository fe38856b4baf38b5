"""Gate 1: kill -9 at random moments of an agent's life; after each, everything acknowledged is there.

A worker holds the model and forks a child for each cycle, so that a cycle costs no start of Python. Two of
three kills come from a clock, one from the n-th call that changes a file. Beside every third writer a reader is at
work, until the next writer has recovered.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults import children, shim
from faults.agent_life import Step, lived, look, opened, short_of, verbs
from faults.beside import Reader
from faults.results import Found
from faults.shim import Fault, Kind
from faults.trees import clone, replace, scratch

LONGEST_SECONDS = 0.15
MOST_CALLS = 120
VERBS = 14
READERS = 1 / 3
"""The share of kills with a reader beside the writer."""


@dataclass(frozen=True)
class Share:
    """What one worker does: so many kills, from its own seed."""

    kills: int
    seed: int


class Victim:
    """An agent that is killed again and again on its way through a life, beside its twin's record of it."""

    def __init__(self, folder: Path, steps: Sequence[Step]) -> None:
        self.folder = folder
        self.steps = steps
        self.place = 0  # steps that are done, the empty one included
        self._acknowledged = mmap.mmap(-1, 8)  # shared with the child, and still there when it is dead

    @property
    def states(self) -> set[Any]:
        """Every state that a reader may see, in short."""
        return {short for step in self.steps for short in (step.seen[0], *step.parts)}

    @property
    def finished(self) -> bool:
        """Whether the life was lived to its end."""
        return self.place == len(self.steps) - 1

    def go_on(self, chance: random.Random) -> str:
        """Live on in a child, and kill it; returns how it ended."""
        self._acknowledge(self.place)
        calls = chance.randint(1, MOST_CALLS) if chance.random() < 1 / 3 else -1
        delay = chance.uniform(0, LONGEST_SECONDS)
        child = children.fork()
        if child == 0:
            self._live(calls)
        if calls < 0:
            time.sleep(delay)
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        how = f"at call {calls}" if calls > 0 else f"after {delay:.3f} s"
        return "" if code in (0, -signal.SIGKILL) else f"the child ended with {code}, killed {how}"

    def check(self) -> list[str]:
        """Open it again: it stands where it was acknowledged, or one verb or part further, and is whole."""
        (done,) = struct.unpack("q", self._acknowledged[:8])
        with opened(self.folder) as memory:
            report = memory.verify(deep=True)
            found = look(memory, self.folder)
            here = short_of(memory._store)
        problems = [] if report.ok else [f"it does not verify: {report.findings}"]
        if done + 1 < len(self.steps) and found == self.steps[done + 1].seen:
            self.place = done + 1
        elif found == self.steps[done].seen or self._in_parts(done, here):
            self.place = done
        else:
            problems.append(f"not the twin's state after {self._name(done)}, nor after what followed")
        return problems

    def _in_parts(self, done: int, here: object) -> bool:
        return done + 1 < len(self.steps) and here in self.steps[done + 1].parts

    def _name(self, done: int) -> str:
        return f"verb {done} ({self.steps[done].verb.name})"

    def _acknowledge(self, place: int) -> None:
        self._acknowledged[:8] = struct.pack("q", place)

    def _live(self, calls: int) -> None:
        code = 1
        try:
            shim.arm(self.folder, Fault(Kind.KILL_BEFORE, calls))
            memory = opened(self.folder)
            for place in range(self.place + 1, len(self.steps)):
                self.steps[place].verb.act(memory)
                self._acknowledge(place)
            memory.close()
            code = 0
        finally:
            os._exit(code)


def kills(*, count: int, seed: int, jobs: int) -> Found:
    """So many kills, shared by ``jobs`` workers."""
    shares = [Share(count // jobs + (job < count % jobs), seed + job) for job in range(jobs)]
    failures = children.spread(shares, _worker, jobs)
    on = f"chat, observe, append, rewind, forget, fork, collect on a tiny model; {jobs} workers"
    return Found(count, failures, on)


def _worker(share: Share) -> list[str]:
    """Life after life, until the kills are used up."""
    failures: list[str] = []
    chance = random.Random(share.seed)
    done = life = 0
    while done < share.kills:
        life += 1
        with scratch() as folder:
            opened(folder / "born").close()
            clone(folder / "born", folder / "twin")
            steps = lived(folder / "twin", verbs(1000 * share.seed + life, VERBS))
            replace(folder / "born", folder / "victim")
            victim = Victim(folder / "victim", steps)
            while done < share.kills and not victim.finished:
                done += 1
                reader = Reader(victim.folder, victim.states) if chance.random() < READERS else None
                problems = [text for text in (victim.go_on(chance),) if text]
                problems += _checked(victim)
                if reader is not None:
                    problems += reader.stop()[1]
                failures += [f"kill {done} of seed {share.seed}, life {life}: {text}" for text in problems]
                if problems:
                    break
    return failures


def _checked(victim: Victim) -> list[str]:
    try:
        return victim.check()
    except Exception as error:  # noqa: BLE001 - whatever opening it raises is a failure
        return [f"opened again: {type(error).__name__}: {error}"]

"""One operation under one fault: it must end typed, and leave the old state or the new one, both whole."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from agentmem.store import DiskHome
from faults import children, shim
from faults.operations import Operation, disk_home, expected, snapshot
from faults.shim import Fault, Kind, Verb
from faults.trees import replace, scratch

Item = TypeVar("Item")
HomeOf = Callable[[Path], DiskHome]
FAILURES = (
    (Kind.FAIL, errno.ENOSPC, Verb.ALL),
    (Kind.FAIL, errno.EIO, Verb.ALL),
    (Kind.SHORT, 0, Verb.WRITE),
)
READ_FAILURES = ((Kind.FAIL, errno.EIO, Verb.READ), (Kind.SHORT, 0, Verb.READ))
BATCH = 8
KILLS = (Kind.KILL_BEFORE, Kind.KILL_AFTER, Kind.KILL_TORN)


@dataclass(frozen=True)
class Prepared:
    """An operation on the folder it starts from: ``act`` does it, ``see`` tells what is there.

    ``before`` and ``after``: what may be there afterwards; ``between``: what else may, as ``see(...)[0]``, when
    the operation is acknowledged in parts.
    """

    name: str
    folder: Path
    act: Callable[[Path], None]
    see: Callable[[Path], Any]
    before: Any
    after: Any
    between: Sequence[Any] = ()
    home_of: HomeOf = disk_home

    def allows(self, found: Any) -> bool:
        """Whether that may be there after a fault."""
        return found in (self.before, self.after) or (bool(self.between) and found[0] in self.between)

    def acknowledges(self, found: Any) -> bool:
        """Whether that may be there once the operation has returned."""
        return bool(found == self.after)


@dataclass(frozen=True)
class Case:
    """One operation, one fault."""

    prepared: Prepared
    fault: Fault

    def __str__(self) -> str:
        return f"{self.prepared.name}: {self.fault}"


def prepare(operation: Operation, folder: Path, home_of: HomeOf = disk_home) -> Prepared:
    """Lay down in ``folder`` what the operation starts from, and check that it does what it should."""
    before, after = expected(operation)
    folder.mkdir(parents=True)
    home = home_of(folder)
    operation.prepare(home)
    operation.disturb(home)
    prepared = Prepared(
        operation.name if home_of == disk_home else f"{operation.name}, encrypted",
        folder,
        lambda folder: operation.act(home_of(folder)),
        lambda folder: snapshot(home_of(folder)),
        before,
        after,
        home_of=home_of,
    )
    return checked(prepared)


def checked(prepared: Prepared) -> Prepared:
    """The operation itself, once it was seen to do what it should. Raises AssertionError."""
    problems = run([Case(prepared, shim.NO_FAULT)])
    assert not problems, problems
    return prepared


def calls_of(prepared: Prepared, verbs: Verb) -> int:
    """How many calls of these kinds the operation makes when nothing goes wrong."""
    with scratch() as folder:
        replace(prepared.folder, folder)
        shim.arm(folder, Fault(Kind.FAIL, -1, verbs=verbs))
        prepared.act(folder)
        return shim.disarm()


def failures_of(prepared: Prepared, failures: Sequence[tuple[Kind, int, Verb]] = FAILURES) -> list[Case]:
    """Every call x {no space, I/O error, short write}, or what ``failures`` says, x {once, from then on}."""
    return [
        Case(prepared, Fault(kind, nth, error, forever, verbs))
        for kind, error, verbs in failures
        for nth in range(1, calls_of(prepared, verbs) + 1)
        for forever in (False, True)
    ]


def kills_of(prepared: Prepared) -> list[Case]:
    """A kill before, after and (writes) half way through every call."""
    return [
        Case(prepared, Fault(kind, nth, verbs=verbs))
        for kind in KILLS
        for verbs in (Verb.WRITE if kind == Kind.KILL_TORN else Verb.ALL,)
        for nth in range(1, calls_of(prepared, verbs) + 1)
    ]


def run(cases: Sequence[Case]) -> list[str]:
    """What went wrong, in words; empty when all is as it must be. They are done in one process as long as it lives."""
    with scratch() as folder:
        places = [folder / str(number) for number in range(len(cases))]
        for case, place in zip(cases, places, strict=True):
            replace(case.prepared.folder, place)
        bodies = [partial(_acted, case, place) for case, place in zip(cases, places, strict=True)]
        problems: list[str] = []
        for case, place, outcome in zip(cases, places, children.tried_in_turn(bodies), strict=True):
            wrong = [f"{case}: {text}" for text in _wrong(case.prepared, outcome, place)]
            if wrong and len(cases) > 1 and not run([case]):
                wrong.append(f"{case}: but nothing is wrong with it in a process of its own")
            problems += wrong
    return problems


def _acted(case: Case, folder: Path) -> None:
    shim.arm(folder, case.fault)
    try:
        case.prepared.act(folder)
    finally:
        shim.disarm()


def _wrong(prepared: Prepared, outcome: children.Outcome, folder: Path) -> list[str]:
    problems = [f"it ended {outcome.text}"] if outcome.ended == "broken" else []
    try:
        problems += _judged(prepared, outcome, folder)
    except Exception as error:  # noqa: BLE001 - whatever opening it raises is a failure of this case
        problems.append(f"opened again: {type(error).__name__}: {error}")
    return problems


def batches(cases: Sequence[Case]) -> list[Sequence[Case]]:
    """Cases that one process does: starting one takes as long as a case does."""
    return [cases[at : at + BATCH] for at in range(0, len(cases), BATCH)]


def thinned(cases: Sequence[Item], limit: int, seed: int) -> list[Item]:
    """Evenly spread cases, at most ``limit``; the seed moves them."""
    if len(cases) <= limit:
        return list(cases)
    step = len(cases) / limit
    return [cases[int((number + (seed * 0.618) % 1) * step)] for number in range(limit)]


def _judged(prepared: Prepared, outcome: children.Outcome, folder: Path) -> Iterable[str]:
    """The home opened again without faults: old or new, new if it was acknowledged; then it goes on."""
    found = prepared.see(folder)
    if outcome.ended == "done" and not prepared.acknowledges(found):
        return ["it was acknowledged, and is not there"]
    if not prepared.allows(found):
        return [f"neither the state before nor the one after ({outcome.ended} {outcome.text})"]
    if found != prepared.after:
        prepared.act(folder)
        if prepared.see(folder) != prepared.after:
            return ["repeated without a fault it did not do what it should"]
    return []

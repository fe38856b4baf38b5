"""Gates 2 and 6: a fault at every call that changes or reads a file, in every verb, and in every recovery.

Gate 2 takes the verbs on agents that were closed properly, without a model and with one, and openings that read
everything; faults on reads are I/O errors and short reads. Gate 6 takes what
must be finished, cleared away or brought up to date when an agent is opened, kills in the verbs that change the
past, and a second fault in the recovery from the first.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace as changed
from functools import partial
from pathlib import Path

from faults import children, shim
from faults.agent_operations import agent_operations
from faults.faulted import (
    READ_FAILURES,
    Case,
    HomeOf,
    Prepared,
    batches,
    failures_of,
    kills_of,
    prepare,
    run,
    thinned,
)
from faults.mending_operations import Mending, encrypted_migrations, mendings
from faults.operations import PLAIN, READING, encrypted_home, interrupted, migrations, read_all
from faults.results import Found
from faults.trees import replace, scratch

PAST = (
    "forget",
    "rebuild",
    "forget what a fork shares",
    "collect",
    "fork",
    "delete",
    "create",
    "turn elsewhere",
    "replace by a new one",
)
ENCRYPTED = ("create", "turn", "forget", "rebuild", "fork")
"""Verbs that are also tried with a key."""
SHARE = 20
"""Second faults that one process prepares and tries at a time."""


def faults_at_calls(*, limit: int, agent_limit: int, seed: int, jobs: int) -> Found:
    """Gate 2; at most ``limit`` cases of each verb without a model, ``agent_limit`` of each with one."""
    with scratch() as folder:
        prepared = [prepare(operation, folder / f"plain{n}") for n, operation in enumerate(PLAIN)]
        prepared += [
            prepare(operation, folder / f"encrypted{n}", encrypted_home)
            for n, operation in enumerate(PLAIN)
            if operation.name in ENCRYPTED
        ]
        prepared += mendings(folder / "mendings")
        cases = _spread_out([failures_of(one) for one in prepared], limit, seed)
        agents = agent_operations(folder / "agents")
        cases += _spread_out([failures_of(one) for one in agents], agent_limit, seed)
        reads = [
            prepare(READING, folder / "reading"),
            prepare(READING, folder / "decrypting", encrypted_home),
        ]
        reads += prepared
        failing = [failures_of(one, READ_FAILURES) for one in (*reads, *agents)]
        on_reads = _spread_out(failing, max(1, limit // 4), seed)
        on = f"{len(prepared)} verbs of the store, {len(agents)} of an agent with a model; {len(on_reads)} on reads"
        cases += on_reads
        return Found(len(cases), children.spread(batches(cases), run, jobs), on)


def faults_in_recovery(*, limit: int, agent_limit: int, twice: int, seed: int, jobs: int) -> Found:
    """Gate 6; ``twice`` cases have a second fault in the recovery from a kill."""
    with scratch() as folder:
        verbs = [operation for operation in PLAIN if operation.name in PAST]
        changing = [prepare(operation, folder / f"past{n}") for n, operation in enumerate(verbs)]
        opening = [
            prepare(operation, folder / f"opening{n}")
            for n, operation in enumerate((*interrupted(), *migrations()))
        ]
        changing += mendings(folder / "mendings")
        opening += encrypted_migrations(folder / "encrypted")
        cases = _spread_out([kills_of(one) for one in changing], limit, seed)
        cases += _spread_out([[*failures_of(one), *kills_of(one)] for one in opening], limit, seed)
        agents = agent_operations(folder / "agents")
        cases += _spread_out([kills_of(one) for one in agents], agent_limit, seed)
        failures = children.spread(batches(cases), run, jobs)
        shares = [(seed + n, min(SHARE, twice - at)) for n, at in enumerate(range(0, twice, SHARE))]
        bases = changing + opening
        failures += children.spread(shares, lambda share: _failed_twice(bases, *share), jobs)
        on = (
            f"{len(changing)} verbs that change the past, {len(opening)} recoveries and migrations, "
            f"{len(agents)} verbs with a model; {twice} with a second fault"
        )
        return Found(len(cases) + twice, failures, on)


def _spread_out(cases: Sequence[list[Case]], limit: int, seed: int) -> list[Case]:
    return [case for some in cases for case in thinned(some, limit, seed)]


def _failed_twice(bases: Sequence[Prepared], seed: int, count: int) -> list[str]:
    """What went wrong in so many openings, under a fault, of what a kill left behind."""
    with scratch() as folder:
        return run(_second_faults(bases, folder, count, seed))


def _second_faults(bases: Sequence[Prepared], folder: Path, count: int, seed: int) -> list[Case]:
    """Openings, under a fault, of what a kill at a random call left behind; four faults to each kill.

    What was being mended is mended again instead. A kill leaves the old state or the new one; which of them, is
    this case's rule.
    """
    chance = random.Random(seed)
    found: list[Case] = []
    while len(found) < count:
        base = chance.choice(bases)
        left = folder / str(len(found))
        replace(base.folder, left)
        kill = chance.choice(kills_of(base)).fault

        def body(base: Prepared = base, left: Path = left, kill: shim.Fault = kill) -> None:
            shim.arm(left, kill)
            base.act(left)

        if children.tried(body).ended != "killed":
            continue
        with scratch() as copy:
            replace(left, copy)
            stands = base.see(copy)
        mends = isinstance(base, Mending)
        opening = changed(
            base,
            name=f"opened after {base.name} was killed ({kill})",
            folder=left,
            act=base.act if mends else partial(_read_all, base.home_of),
            before=stands,
            after=base.after if mends else stands,
        )
        options = [*failures_of(opening), *kills_of(opening)]
        found += chance.sample(options, min(4, len(options), count - len(found)))
    return found


def _read_all(home_of: HomeOf, folder: Path) -> None:
    read_all(home_of(folder))

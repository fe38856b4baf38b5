"""All gates by number, with what each does in its two sizes: the one CI has time for, and the long one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from faults.gate_bits import changed_bits, every_bit
from faults.gate_calls import faults_at_calls, faults_in_recovery
from faults.gate_clock import clock_jumps
from faults.gate_disk_full import disk_full
from faults.gate_kills import kills
from faults.gate_leaks import left_behind
from faults.gate_model import beside_memory
from faults.gate_power import power_loss
from faults.gate_readers import overtaken
from faults.gate_suites import suite
from faults.results import Found

ALL = 1_000_000
"""More cases than any verb has."""


@dataclass(frozen=True)
class Run:
    """How a gate is run: from this seed, in so many processes at once."""

    seed: int
    jobs: int


@dataclass(frozen=True)
class Gate:
    """One gate. ``quick`` None: it is part of the tests already, and only the long profile repeats it larger."""

    name: str
    quick: Callable[[Run], Found] | None
    long: Callable[[Run], Found]


GATES = (
    Gate(
        "1 kill -9 at random moments",
        lambda run: kills(count=300, seed=run.seed, jobs=run.jobs),
        lambda run: kills(count=5_000, seed=run.seed, jobs=run.jobs),
    ),
    Gate(
        "2 a fault at every call to the file system",
        lambda run: faults_at_calls(limit=40, agent_limit=15, seed=run.seed, jobs=run.jobs),
        lambda run: faults_at_calls(limit=ALL, agent_limit=400, seed=run.seed, jobs=run.jobs),
    ),
    Gate(
        "3 changed bits, lost ends and noise",
        lambda run: changed_bits(bits=1_200, cuts=300, noise=300, seed=run.seed, jobs=run.jobs),
        lambda run: changed_bits(bits=40_000, cuts=4_000, noise=2_000, seed=run.seed, jobs=run.jobs),
    ),
    Gate("3 every bit, every length", None, lambda run: every_bit(seed=run.seed, jobs=run.jobs)),
    Gate(
        "4 power loss",
        lambda run: power_loss(tries=1, nested=2, limit=2_500, agent_limit=250, seed=run.seed, jobs=run.jobs),
        lambda run: power_loss(
            tries=6, nested=60, limit=ALL, agent_limit=4_000, seed=run.seed, jobs=run.jobs
        ),
    ),
    Gate(
        "5 a full disk",
        lambda run: disk_full(rounds=4, seed=run.seed),
        lambda run: disk_full(rounds=40, seed=run.seed),
    ),
    Gate(
        "6 faults and kills in recovery and maintenance",
        lambda run: faults_in_recovery(limit=30, agent_limit=15, twice=60, seed=run.seed, jobs=run.jobs),
        lambda run: faults_in_recovery(limit=ALL, agent_limit=300, twice=2_000, seed=run.seed, jobs=run.jobs),
    ),
    Gate(
        "7 several processes and threads",
        None,
        lambda _: suite(
            "one writer, any number of readers, forks, stale writers, many agents on one engine",
            "store/test_locking.py",
            "store/test_readers_beside_writers.py",
            "langchain/test_processes.py",
            "langchain/test_stress.py",
            "security/test_many_at_once.py",
        ),
    ),
    Gate(
        "7 readers beside a busy writer",
        lambda run: overtaken(verbs=400, seed=run.seed, jobs=run.jobs),
        lambda run: overtaken(verbs=10_000, seed=run.seed, jobs=run.jobs),
    ),
    Gate("7 leaks", None, lambda _: left_behind(openings=10_000, turns=2_000)),
    Gate(
        "8 clock jumps",
        lambda run: clock_jumps(lives=2, seed=run.seed, jobs=run.jobs),
        lambda run: clock_jumps(lives=30, seed=run.seed, jobs=run.jobs),
    ),
    Gate(
        "9 a model of the store, step by step",
        None,
        lambda run: beside_memory(lives=600, steps=50, seed=run.seed, jobs=run.jobs),
    ),
    Gate(
        "10 a resumed agent is the same agent",
        None,
        lambda _: suite(
            "fresh processes, every selector and dtype; every field of the fingerprint",
            "facts/test_fact2_resume.py",
            "facts/test_fact2_modes.py",
            "agent/test_opening.py",
        ),
    ),
)

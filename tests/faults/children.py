"""Forked children: one that is tried and may be killed, and several that share the work.

Knows processes and pipes; nothing of agents.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from agentmem.errors import AgentMemError

Case = TypeVar("Case")
Body = Callable[[], str | None]
PATIENCE_SECONDS = 120


@dataclass(frozen=True)
class Outcome:
    """How a child ended: it finished, was refused with a typed error, was killed, or broke our rules."""

    ended: Literal["done", "refused", "killed", "broken"]
    text: str


def tried(body: Body) -> Outcome:
    """Run ``body`` in a forked child and see how it ends, and what it says. SIGKILL is what we send ourselves."""
    return tried_in_turn([body])[0]


def tried_in_turn(bodies: Sequence[Body]) -> list[Outcome]:
    """Run them one after another in one forked child; when one ends it, those behind it get a new one."""
    found: list[Outcome] = []
    while len(found) < len(bodies):
        reading, writing = os.pipe()
        child = fork()
        if child == 0:
            os.close(reading)
            _run_in_turn(bodies[len(found) :], writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            said = pipe.read().decode(errors="replace")
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found += [Outcome(*json.loads(line)) for line in said.splitlines()]
        if code:
            found.append(Outcome("killed", "") if code == -signal.SIGKILL else Outcome("broken", _sign(code)))
    return found


def spread(cases: Sequence[Case], run: Callable[[Case], list[str]], jobs: int) -> list[str]:
    """Run all cases in ``jobs`` forked processes; returns what went wrong, in the order of the cases."""
    if jobs <= 1:
        return [text for case in cases for text in run(case)]
    children = []
    for job in range(jobs):
        reading, writing = os.pipe()
        child = fork()
        if child == 0:
            os.close(reading)
            _work(cases, run, (job, jobs), writing)
        os.close(writing)
        children.append((child, reading))
    found: list[tuple[int, str]] = []
    for child, reading in children:
        with os.fdopen(reading, "rb") as pipe:
            said = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code:
            found.append((-1, f"a worker ended with {code}: {said.decode(errors='replace')}"))
        else:
            found += [(number, text) for number, text in json.loads(said)]
    return [text for _, text in sorted(found)]


def fork() -> int:
    """Fork, without Python's warning of torch's idle threads."""
    sys.stdout.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _run_in_turn(bodies: Sequence[Body], writing: int) -> None:
    code = 1
    try:
        for body in bodies:
            signal.alarm(PATIENCE_SECONDS)
            os.write(writing, json.dumps(_ended(body)).encode() + b"\n")
        code = 0
    finally:
        os._exit(code)


def _ended(body: Body) -> tuple[str, str]:
    try:
        return "done", body() or ""
    except AgentMemError as error:
        return "refused", f"{type(error).__name__}: {error}"[:4000]
    except BaseException:  # noqa: BLE001
        return "broken", traceback.format_exc()[-4000:]


def _sign(code: int) -> str:
    return f"by signal {-code}" if code < 0 else f"with {code}"


def _work(
    cases: Sequence[Case], run: Callable[[Case], list[str]], share: tuple[int, int], writing: int
) -> None:
    try:
        first, step = share
        found = [(at, text) for at in range(first, len(cases), step) for text in run(cases[at])]
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(json.dumps(found).encode())
    except BaseException:  # noqa: BLE001
        os.write(writing, traceback.format_exc().encode()[-4000:])
        os._exit(1)
    os._exit(0)

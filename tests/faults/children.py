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
PATIENCE_SECONDS = 120


@dataclass(frozen=True)
class Outcome:
    """How a child ended: it finished, was refused with a typed error, was killed, or broke our rules."""

    ended: Literal["done", "refused", "killed", "broken"]
    text: str


def tried(body: Callable[[], str | None]) -> Outcome:
    """Run ``body`` in a forked child and see how it ends, and what it says. SIGKILL is what we send ourselves."""
    reading, writing = os.pipe()
    child = fork()
    if child == 0:
        os.close(reading)
        signal.alarm(PATIENCE_SECONDS)
        _run_child(body, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read().decode(errors="replace")
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == -signal.SIGKILL:
        return Outcome("killed", text)
    if code == 0:
        return Outcome("done", text)
    if code == 10:
        return Outcome("refused", text)
    return Outcome("broken", text if code > 0 else f"ended by signal {-code}; {text}")


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


def _run_child(body: Callable[[], str | None], writing: int) -> None:
    code = 11
    try:
        os.write(writing, (body() or "").encode())
        code = 0
    except AgentMemError as error:
        os.write(writing, f"{type(error).__name__}: {error}".encode()[:4000])
        code = 10
    except BaseException:  # noqa: BLE001
        os.write(writing, traceback.format_exc().encode()[-4000:])
    finally:
        os._exit(code)


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

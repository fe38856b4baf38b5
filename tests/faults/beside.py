"""A reader in a process of its own, beside a writer that is killed: whole states of the twin's, or a typed error.

It opens the agent again and again, read-only and without a model, and looks twice through each opening, also while
the next writer recovers what the killed one left. What it reads must be a state that the twin was in.
"""

from __future__ import annotations

import json
import mmap
import os
import traceback
from collections.abc import Collection
from pathlib import Path
from typing import Any

from agentmem.errors import AgentMemError, DamagedError
from faults import children
from faults.agent_life import home_of, short_of

PROBLEMS_SHOWN = 3


class Reader:
    """A running reader of the agent "ada"; ``allowed`` are the states that may be seen, in short."""

    def __init__(self, folder: Path, allowed: Collection[Any]) -> None:
        self._stop = mmap.mmap(-1, 1)  # shared with the child
        self._pipe, writing = os.pipe()
        self._child = children.fork()
        if self._child == 0:
            os.close(self._pipe)
            _read_on(folder, allowed, self._stop, writing)
        os.close(writing)

    def stop(self) -> tuple[int, list[str]]:
        """End it; how often it saw a whole state, and what it saw that must not be."""
        self._stop[0] = 1
        with os.fdopen(self._pipe, "rb") as pipe:
            said = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        if code or not said:
            return 0, [f"the reader ended with {code}: {said.decode(errors='replace')}"]
        looks, problems = json.loads(said)
        return looks, [f"the reader: {text}" for text in problems]


def _read_on(folder: Path, allowed: Collection[Any], stop: mmap.mmap, writing: int) -> None:
    code, looks, problems = 1, 0, []
    try:
        while not stop[0]:
            try:
                looks += _looked(folder, allowed)
            except DamagedError as error:  # nothing is damaged
                problems.append(repr(error))
            except AgentMemError:
                continue  # told to open it again, or later
            except Exception:  # noqa: BLE001
                problems.append(traceback.format_exc())
        os.write(writing, json.dumps([looks, problems[:PROBLEMS_SHOWN]]).encode())
        code = 0
    finally:
        os._exit(code)


def _looked(folder: Path, allowed: Collection[Any]) -> int:
    """Open it and look twice: both times the same state, and one of the twin's. Raises AgentMemError."""
    store = home_of(folder).open("ada", read_only=True)
    try:
        first = short_of(store)
        assert first in allowed, f"the twin never was in {first}"
        second = short_of(store)
        assert second == first, f"it changed while it was open: {first} became {second}"
        return 1
    finally:
        store.close()

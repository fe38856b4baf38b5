"""The open memories of this process: one per agent, used by one call at a time, parked in between.

Everything of this package that touches an agent borrows it here, so that two chat models, a tool and a
callback on one agent queue instead of locking each other out. Between calls the writer's lock is given up:
another process may write, and then the memory is opened anew. Knows nothing of messages or models' replies.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentmem import AgentMemory, ClosedError, LanguageModel, MemoryConfig
from agentmem.agent.gate import Gate
from agentmem.agent.places import find_home
from agentmem.store.base import Home
from agentmem.store.home import DiskHome

KEPT_OPEN = 16
"""Memories that stay open between calls; of more, those not used for the longest time are closed."""


@dataclass(frozen=True)
class Opening:
    """How an agent is opened; None means "as stored", else the default. See ``AgentMemory.resume``."""

    agent_id: str
    home: str | Path | Home | None = None
    model: str | Path | LanguageModel | None = None
    config: MemoryConfig | None = None
    device: str = "auto"
    dtype: str = "auto"
    wait: float = 60.0
    """Seconds to wait for a writer in another process."""

    def takes(self, other: Opening) -> bool:
        """Whether a memory opened in that way will do: what is not asked for may be as it is."""
        return (
            self.model in {None, other.model}
            and self.config in (None, other.config)
            and self.device in {"auto", other.device}
            and self.dtype in {"auto", other.dtype}
        )


class Seat:
    """One agent's place: whoever is inside its gate has the memory for itself.

    ``notes`` belongs to the borrowers: what one call learned and the next may use. It is emptied
    whenever the memory had to be opened anew.
    """

    def __init__(self, opening: Opening) -> None:
        self.gate = Gate(f"agent {opening.agent_id!r}")
        self.users = 0
        self.notes: dict[str, Any] = {}
        self._opening = opening
        self._memory: AgentMemory | None = None

    @property
    def memory(self) -> AgentMemory:
        """The open memory. Raises ClosedError outside of ``borrow``."""
        if self._memory is None:
            raise ClosedError(f"agent {self._opening.agent_id!r} is not borrowed; use `with borrow(...)`")
        return self._memory

    def take(self, opening: Opening) -> None:
        """Open the memory, or go on with the parked one."""
        if self._memory is not None:
            kept = opening.takes(self._opening) and self._memory.unpark(opening.wait)
            if not kept:
                self.close()
        if self._memory is None:
            self._memory = AgentMemory.resume(
                opening.agent_id,
                model=opening.model,
                home=opening.home,
                device=opening.device,
                dtype=opening.dtype,
                config=opening.config,
                wait=opening.wait,
            )
            self._opening = opening

    def rest(self) -> None:
        """Let other processes write until the next call."""
        if self._memory is not None:
            self._memory.park()

    def close(self) -> None:
        """Let the memory go."""
        memory, self._memory = self._memory, None
        self.notes.clear()
        if memory is not None:
            memory.close()


class Pool:
    """All seats of a process. Threads may share it."""

    def __init__(self, kept_open: int = KEPT_OPEN) -> None:
        self._kept_open = kept_open
        self._lock = threading.Lock()
        self._seats: OrderedDict[Hashable, Seat] = OrderedDict()
        self._left_to_parent: list[Seat] = []

    @contextmanager
    def borrow(self, opening: Opening) -> Iterator[Seat]:
        """The agent for one call; others wait. Raises what ``AgentMemory.resume`` raises.

        Raises:
            AgentBusyError: this thread or task is inside already, in an unfinished stream of its own, or
                another process writes for longer than ``opening.wait``.
        """
        seat = self._join(opening)
        try:
            seat.gate.enter()
            try:
                seat.take(opening)
                try:
                    yield seat
                finally:
                    seat.rest()
            finally:
                seat.gate.leave()
        finally:
            self._part(seat)

    def close(self) -> None:
        """Close every memory that nobody is using."""
        for seat in self._idle(keep=0):
            seat.close()

    def abandon(self) -> None:
        """Forget every seat without closing it: in a forked child they are the parent's."""
        self._left_to_parent.extend(self._seats.values())
        self._seats = OrderedDict()
        self._lock = threading.Lock()

    def _join(self, opening: Opening) -> Seat:
        key = (_place(opening.home), opening.agent_id)
        with self._lock:
            seat = self._seats.setdefault(key, Seat(opening))
            self._seats.move_to_end(key)
            seat.users += 1
        return seat

    def _part(self, seat: Seat) -> None:
        with self._lock:
            seat.users -= 1
        for idle in self._idle(keep=self._kept_open):
            idle.close()

    def _idle(self, keep: int) -> list[Seat]:
        """Take unused seats out, oldest first, until at most ``keep`` seats are left."""
        with self._lock:
            spare = len(self._seats) - keep
            unused = [key for key, seat in self._seats.items() if not seat.users][: max(spare, 0)]
            return [self._seats.pop(key) for key in unused]


POOL = Pool()
"""The pool of this process."""
os.register_at_fork(after_in_child=POOL.abandon)


@contextmanager
def borrow(opening: Opening) -> Iterator[AgentMemory]:
    """The agent's memory for one call; calls on one agent queue, in whatever part of this package they are made."""
    with POOL.borrow(opening) as seat:
        try:
            yield seat.memory
        finally:
            seat.notes.clear()  # whoever borrows in this way may forget, rewind or append


def close_memories() -> None:
    """Close the memories that the chat models, tools and callbacks of this process keep open for later calls."""
    POOL.close()


def _place(home: str | Path | Home | None) -> Hashable:
    """What makes two homes the same: their folder, else the object itself."""
    found = find_home(home)
    return found.home.resolve() if isinstance(found, DiskHome) else id(found)

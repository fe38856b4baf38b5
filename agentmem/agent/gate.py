"""One call at a time on one memory: calls from other threads and tasks queue, a stream holds its place.

Knows nothing of what is guarded. A plain lock would hang a thread, or an asyncio task, that calls the
memory in the middle of its own unfinished stream; that is told as an error instead.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from agentmem.errors import AgentBusyError, ClosedError


@dataclass(frozen=True)
class Caller:
    """Who makes a call. ``thread`` is None when a worker thread waits in the caller's place."""

    thread: int | None
    task: asyncio.Task[Any] | None
    loop: asyncio.AbstractEventLoop | None

    @classmethod
    def here(cls) -> Caller:
        """The caller of the code that is running."""
        acting = _acting_for.get()
        if acting is not None:
            return acting
        try:
            return cls(threading.get_ident(), asyncio.current_task(), asyncio.get_running_loop())
        except RuntimeError:
            return cls(threading.get_ident(), None, None)

    def through_worker(self) -> Caller:
        """The same caller, who awaits each piece while a worker thread does the waiting."""
        return replace(self, thread=None)

    def apart(self) -> Caller:
        """The same caller, for a worker thread that ends without the loop's help."""
        return replace(self, thread=None, loop=None)

    def waits_for_itself(self, holder: Caller) -> bool:
        """Whether waiting for the holder would keep the holder from ever ending."""
        if self.thread is None:
            return self.task is not None and self.task is holder.task
        return self.thread == holder.thread or (self.loop is not None and self.loop is holder.loop)


_acting_for: ContextVar[Caller | None] = ContextVar("agentmem_caller", default=None)


@contextmanager
def acting_for(caller: Caller) -> Iterator[None]:
    """Calls made inside are the caller's: for worker threads of async calls."""
    token = _acting_for.set(caller)
    try:
        yield
    finally:
        _acting_for.reset(token)


class Gate:
    """Entered for each call; a stream stays inside until it ends, possibly in another thread."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._inside: Caller | None = None
        self._closed = False

    def enter(self) -> None:
        """Wait for the turn of this call. Raises AgentBusyError, ClosedError."""
        if self.held_here:
            raise AgentBusyError(
                f"{self._what} is in the middle of a stream of this thread or task; read it to its end or close() it"
            )
        self._lock.acquire()
        if self._closed:
            self._lock.release()
            raise ClosedError(f"{self._what} was closed; open it again with AgentMemory.resume")
        self._inside = Caller.here()

    def leave(self) -> None:
        """Let the next call in."""
        self._inside = None
        self._lock.release()

    def shut(self) -> None:
        """Refuse every later call. To be called from inside."""
        self._closed = True

    @property
    def held_here(self) -> bool:
        """Whether this thread or task is inside, so that it would wait for itself."""
        holder = self._inside
        return holder is not None and Caller.here().waits_for_itself(holder)

    @property
    def closed(self) -> bool:
        """Whether ``shut`` was called."""
        return self._closed

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *_: object) -> None:
        self.leave()

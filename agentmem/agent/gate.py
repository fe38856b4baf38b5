"""One call at a time on one memory: calls from other threads and tasks queue, a stream holds its place.

A memory that is parked or closed lets no call in, but for those that end that.

Knows nothing of what is guarded. A plain lock would hang a thread, or an asyncio task, that calls the
memory in the middle of its own unfinished stream; that is told as an error instead.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from agentmem.errors import AgentBusyError, ClosedError, StaleWriterError

Made = TypeVar("Made")


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


async def in_worker(call: Callable[[], Made]) -> Made:
    """Make a blocking call in a worker thread, in the name of the task that awaits it."""
    caller = Caller.here().apart()

    def run() -> Made:
        with acting_for(caller):
            return call()

    return await asyncio.to_thread(run)


class Gate:
    """Entered for each call; a stream stays inside until it ends, possibly in another thread."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._inside: Caller | None = None
        self._closed = False
        self._parked = False

    def enter(self) -> None:
        """Wait for the turn of this call. Raises AgentBusyError, ClosedError."""
        self._wait()
        if self._parked:
            self._lock.release()
            raise ClosedError(f"{self._what} is parked; unpark() it first")
        self._inside = Caller.here()

    @contextmanager
    def even_parked(self) -> Iterator[None]:
        """Inside, parked or not. Raises AgentBusyError, ClosedError."""
        self._wait()
        self._inside = Caller.here()
        try:
            yield
        finally:
            self.leave()

    def leave(self) -> None:
        """Let the next call in."""
        self._inside = None
        self._lock.release()

    def park(self) -> None:
        """Refuse calls until ``unpark``. To be called from inside."""
        self._parked = True

    def unpark(self) -> None:
        """Let calls in again. To be called from inside."""
        self._parked = False

    def shut(self) -> None:
        """Refuse every later call. To be called from inside."""
        self._closed = True

    def _wait(self) -> None:
        if self._process != os.getpid():  # the lock may be held by a thread that this process has not
            raise StaleWriterError(f"{self._what} was opened by the parent process; open it anew in this one")
        if self.held_here:
            raise AgentBusyError(
                f"{self._what} is in the middle of a stream of this thread or task; read it to its end or close() it"
            )
        self._lock.acquire()
        if self._closed:
            self._lock.release()
            raise ClosedError(f"{self._what} was closed; open it again with AgentMemory.resume")

    @property
    def held_here(self) -> bool:
        """Whether this thread or task is inside, so that it would wait for itself."""
        holder = self._inside
        return holder is not None and Caller.here().waits_for_itself(holder)

    @property
    def parked(self) -> bool:
        """Whether calls are refused until ``unpark``."""
        return self._parked

    @property
    def closed(self) -> bool:
        """Whether ``shut`` was called."""
        return self._closed

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *_: object) -> None:
        self.leave()

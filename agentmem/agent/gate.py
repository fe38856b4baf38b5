"""One call at a time on one memory: calls from other threads queue, a stream holds its place.

Knows nothing of what is guarded. A plain lock would hang a thread that calls the memory in the middle
of its own unfinished stream; that is told as an error instead.
"""

from __future__ import annotations

import threading

from agentmem.errors import AgentBusyError, ClosedError


class Gate:
    """Entered for each call; a stream stays inside until it ends, possibly in another thread."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._inside: int | None = None
        self._closed = False

    def enter(self) -> None:
        """Wait for the turn of this call. Raises AgentBusyError, ClosedError."""
        if self.held_here:
            raise AgentBusyError(
                f"{self._what} is in the middle of a stream of this thread; read it to its end or close() it"
            )
        self._lock.acquire()
        if self._closed:
            self._lock.release()
            raise ClosedError(f"{self._what} was closed; open it again with AgentMemory.resume")
        self._inside = threading.get_ident()

    def leave(self) -> None:
        """Let the next call in."""
        self._inside = None
        self._lock.release()

    def shut(self) -> None:
        """Refuse every later call. To be called from inside."""
        self._closed = True

    @property
    def held_here(self) -> bool:
        """Whether a call or a stream of this thread is inside."""
        return self._inside == threading.get_ident()

    @property
    def closed(self) -> bool:
        """Whether ``shut`` was called."""
        return self._closed

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *_: object) -> None:
        self.leave()

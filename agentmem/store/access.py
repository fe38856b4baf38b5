"""What one opening of an agent may do just now: it is free, in a turn, parked, closed, or another process's.

Knows the lock, where the index lies and whether a turn is open; nothing of what is read or written.
"""

from __future__ import annotations

import os
from pathlib import Path

from agentmem.errors import AgentNotFoundError, ClosedError, ReadOnlyError, StoreError
from agentmem.store.failures import elsewhere
from agentmem.store.lock import WriterLock


class Access:
    """The state of one opening, and its refusals.

    Args:
        index: the index's file.
        agent_id: for messages.
        lock: the right to write; None: opened read-only.
    """

    def __init__(self, index: Path, agent_id: str, lock: WriterLock | None) -> None:
        self._index = index
        self._agent_id = agent_id
        self._lock = lock
        self.closed = False
        self.parked = False
        self.turn_open = False
        self._parked_at: os.stat_result | None = None  # the index as it was when parked
        self._process = os.getpid()

    @property
    def read_only(self) -> bool:
        """True when nothing may be committed."""
        return self._lock is None

    @property
    def elsewhere(self) -> bool:
        """Whether this is a forked child of the process that opened the agent."""
        return self._process != os.getpid()

    def require_open(self) -> None:
        """Raises ClosedError, and StaleWriterError in a forked child."""
        if self.elsewhere:
            raise elsewhere(self._agent_id)
        if self.closed:
            raise ClosedError(f"agent {self._agent_id!r} was closed; open it again")
        if self.parked:
            raise ClosedError(f"agent {self._agent_id!r} is parked; unpark() it first")

    def require_process(self) -> None:
        """Raises ClosedError, StaleWriterError."""
        self.require_open()

    def require_writer(self, verb: str) -> None:
        """For what is done between turns. Raises ReadOnlyError, StoreError and those of ``require_process``."""
        self.require_process()
        if self._lock is None:
            raise ReadOnlyError(f"agent {self._agent_id!r} was opened read-only: cannot {verb}")
        if self.turn_open:
            raise StoreError(
                f"agent {self._agent_id!r}: cannot {verb} while a turn is open; commit or abort it"
            )

    def require_turn(self) -> None:
        """Raises StoreError when no turn is open, and those of ``require_process``."""
        self.require_process()
        if not self.turn_open:
            raise StoreError(f"agent {self._agent_id!r}: there is no open turn to commit; call begin() first")

    def park(self) -> None:
        """Let go of the lock for a while. Raises what ``require_writer`` does."""
        self.require_writer("park")
        self._parked_at = _stat(self._index)
        self.release()
        self.parked = True

    def unpark(self, wait: float) -> bool:
        """Take the lock again; False when the index is gone, or is another file by now.

        Raises AgentBusyError, StaleWriterError: it stays parked.
        """
        if self.elsewhere:
            raise elsewhere(self._agent_id)
        if self._lock is None or not self._is_there():
            return False
        try:
            self._lock.retake(wait)
        except AgentNotFoundError:
            return False
        self.parked = False
        return self._is_there()

    def close(self) -> None:
        """From now on everything is refused; the lock is let go of by ``release``."""
        self.closed, self.parked = True, False

    def release(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            self._lock.release()

    def _is_there(self) -> bool:
        """Whether the index is the file that was parked: one that is held open lends its number to no other."""
        before, now = self._parked_at, _stat(self._index)
        return before is not None and now is not None and os.path.samestat(before, now)


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None

"""What one opening of an agent on disk may do just now: it is free, in a turn, closed, or another process's.

Knows the lock and whether a turn is open; nothing of what is read or written.
"""

from __future__ import annotations

from agentmem.errors import ClosedError, ReadOnlyError, StaleWriterError, StoreError
from agentmem.store.lock import WriterLock


class Access:
    """The state of one opening, and its refusals. ``lock`` None: opened read-only."""

    def __init__(self, agent_id: str, lock: WriterLock | None) -> None:
        self._agent_id = agent_id
        self._lock = lock
        self.closed = False
        self.turn_open = False

    @property
    def read_only(self) -> bool:
        """True when nothing may be committed."""
        return self._lock is None

    @property
    def elsewhere(self) -> bool:
        """Whether this is a forked child of the process that opened the agent for writing."""
        return self._lock is not None and not self._lock.ours

    def require_open(self) -> None:
        """Raises ClosedError."""
        if self.closed:
            raise ClosedError(f"agent {self._agent_id!r} was closed; open it again")

    def require_process(self) -> None:
        """Raises ClosedError, StaleWriterError."""
        self.require_open()
        if self.elsewhere:
            raise StaleWriterError(
                f"agent {self._agent_id!r} was opened by the parent process; open it anew in this one"
            )

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

    def release(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            self._lock.release()

"""One writer per agent: an flock on a file of its own, freed by the kernel when the process ends.

Knows nothing of what is being locked. The file holds the holder's process id, for people and for
:meth:`WriterLock.held_here`. Works on local file systems; NFS is not supported.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from pathlib import Path

from agentmem.errors import AgentBusyError, AgentNotFoundError
from agentmem.store.files import FILE_MODE, read_all, write_all

_POLL_SECONDS = 0.02
_THIS_PROCESS = secrets.token_hex(8)  # a process id alone may be used again


class WriterLock:
    """The right to write, held until :meth:`release`.

    Args:
        path: the lock file; made if its folder is there.
        agent_id: for messages.
        wait: seconds to wait for another holder.

    Raises:
        AgentBusyError: another holder did not let go in time.
        AgentNotFoundError: the folder is gone, perhaps removed while waiting.
    """

    def __init__(self, path: Path, agent_id: str, wait: float = 0.0) -> None:
        self._path = path
        self._agent_id = agent_id
        self._pid = os.getpid()
        self._fd = -1
        self.retake(wait)

    @property
    def ours(self) -> bool:
        """Whether this process, not a forked child of it, made this object."""
        return self._pid == os.getpid()

    @property
    def held(self) -> bool:
        """Whether this process, not a forked child of it, holds the lock."""
        return self._fd >= 0 and self.ours

    def moved(self, path: Path) -> None:
        """The lock file's folder was renamed: here it lies now."""
        self._path = path

    def retake(self, wait: float = 0.0) -> None:
        """Take the lock again after ``release``. Raises AgentBusyError, AgentNotFoundError."""
        self._fd = _acquire(self._path, self._agent_id, wait)
        os.ftruncate(self._fd, 0)
        write_all(self._fd, f"{self._pid} {_THIS_PROCESS}\n".encode(), 0)

    def release(self) -> None:
        """Let go; doing so twice is fine. In a forked child the parent keeps the lock."""
        if self._fd < 0:
            return
        if self.held:
            os.ftruncate(self._fd, 0)
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        os.close(self._fd)
        self._fd = -1

    @staticmethod
    def held_here(path: Path) -> bool:
        """Whether some object of this very process holds the lock."""
        try:
            return path.read_text() == f"{os.getpid()} {_THIS_PROCESS}\n"
        except FileNotFoundError:
            return False


def _acquire(path: Path, agent_id: str, wait: float) -> int:
    deadline = time.monotonic() + wait
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        except FileNotFoundError:
            raise AgentNotFoundError(f"there is no agent {agent_id!r} (any more)") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_file(fd, path):
                return fd
            os.close(fd)  # the agent was removed or replaced while we waited: look again
        except BlockingIOError:
            holder = read_all(fd, 64, 0).decode(errors="replace").partition(" ")[0]
            os.close(fd)
            if time.monotonic() >= deadline:
                raise AgentBusyError(
                    f"agent {agent_id!r} is held by another writer (process {holder or 'unknown'}; waited "
                    f"{wait:g} s). Close it there, wait longer with wait=..., or open it read-only."
                ) from None
            time.sleep(min(_POLL_SECONDS, max(0.0, deadline - time.monotonic())))
        except BaseException:
            os.close(fd)
            raise


def _is_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False

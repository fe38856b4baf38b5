"""One writer per agent: an flock on a file of its own, freed by the kernel when the process ends.

Knows nothing of what is being locked. The file holds the holder's process id, for people alone: a disk
that will not take it stops nobody. Works on local file systems; NFS is not supported.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from agentmem.errors import AgentBusyError, AgentNotFoundError
from agentmem.store.failures import of_disk
from agentmem.store.files import FILE_MODE, read_all, write_all

_POLL_SECONDS = 0.02
_held: dict[tuple[int, int], int] = {}
"""(device, inode) of the lock files held -> the process that holds them: a forked child holds none."""


class WriterLock:
    """The right to write, held until :meth:`release`.

    Args:
        path: the lock file; made if its folder is there.
        agent_id: for messages.
        wait: seconds to wait for another holder.

    Raises:
        AgentBusyError: another holder did not let go in time.
        AgentNotFoundError: the folder is gone, perhaps removed while waiting.
        StoreError: the lock file cannot be opened.
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
        _held[_file_of(self._fd)] = self._pid
        with suppress(OSError):  # a full disk
            os.ftruncate(self._fd, 0)
            write_all(self._fd, f"{self._pid}\n".encode(), 0)

    def release(self) -> None:
        """Let go; doing so twice is fine. In a forked child the parent keeps the lock."""
        if self._fd < 0:
            return
        if self.held:
            with suppress(OSError):
                os.ftruncate(self._fd, 0)
            _held.pop(_file_of(self._fd), None)
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        os.close(self._fd)
        self._fd = -1

    @staticmethod
    def held_here(path: Path) -> bool:
        """Whether some object of this very process holds the lock."""
        try:
            status = path.stat()
        except FileNotFoundError:
            return False
        return _held.get((status.st_dev, status.st_ino)) == os.getpid()


def _acquire(path: Path, agent_id: str, wait: float) -> int:
    deadline = time.monotonic() + wait
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        except FileNotFoundError:
            raise AgentNotFoundError(f"there is no agent {agent_id!r} (any more)") from None
        except OSError as error:
            raise of_disk(agent_id, "taking the lock", error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_file(fd, path):
                return fd
            os.close(fd)  # the agent was removed or replaced while we waited: look again
        except BlockingIOError:
            holder = read_all(fd, 64, 0).decode(errors="replace").strip()
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


def _file_of(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _is_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False

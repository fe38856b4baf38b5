"""What the disk and SQLite raise, as this package's errors: each names the agent, and the file if one is known.

Knows errors only; what was being done, and what it leaves behind, is its callers' affair.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentmem.errors import AgentBusyError, AgentMemError, DamagedError, StaleWriterError, StoreError

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_SIGNS = ("Could not decode to UTF-8", "no such table", "no such column", "malformed")
"""What SQLite says of a file that is not as it was made, under a code of no meaning."""
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_UNABLE = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_FULL, sqlite3.SQLITE_PERM}
"""What SQLite says where the system would not let it work, which says nothing of the file."""
_LOST = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.EIO}
"""What a failed call says of the file itself: it is not there, is no file, or the medium has lost it."""
_OPEN_FILES = "Close other agents or files of this process, or allow it more (ulimit -n), and repeat it; nothing is damaged"
_MEMORY = (
    "Free some memory, or allow this process more maps (vm.max_map_count), and repeat it; nothing is damaged"
)
_RIGHTS = "Give this user the right to its files, or run as the user who made them; nothing is damaged"
_CANNOT = (
    "The system would not let it: too many open files (ulimit -n), no memory, no space, or no right to the agent's "
    "folder. See to that, and repeat it; nothing is damaged"
)
_REMEDIES = {
    errno.EMFILE: _OPEN_FILES,
    errno.ENFILE: _OPEN_FILES,
    errno.ENOMEM: _MEMORY,
    errno.EAGAIN: _MEMORY,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.ENOSPC: "Free some space, and repeat it",
    errno.EDQUOT: "Free some space, and repeat it",
    errno.EROFS: "The disk is read-only: open the agent read-only, or mount it for writing",
}


def of_sqlite(agent_id: str, error: sqlite3.Error | UnicodeError) -> StoreError:
    """An error of SQLite: the index is damaged, in use, or the disk would not do as it was told.

    A UnicodeError comes of a damaged name that SQLite puts into its message.
    """
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if isinstance(error, UnicodeError) or code in _DAMAGE or any(sign in str(error) for sign in _SIGNS):
        return DamagedError(agent_id, "agent.db", "the index", str(error))
    if code in _BUSY:
        return AgentBusyError(f"agent {agent_id!r}: the index is in use ({error}); try again")
    remedy = _CANNOT if code in _UNABLE else "Look after the disk, and repeat it"
    return StoreError(f"agent {agent_id!r}: SQLite failed on agent.db: {error}. {remedy}.")


def elsewhere(agent_id: str) -> StaleWriterError:
    """For a forked child of the process that opened an agent: nothing of it may be used there."""
    return StaleWriterError(f"agent {agent_id!r} was opened by the parent process; open it anew in this one")


def of_disk(agent_id: str, doing: str, error: OSError) -> StoreError:
    """A call to the file system that failed."""
    name = "" if error.filename is None else f" at {Path(error.filename).name}"
    return StoreError(f"agent {agent_id!r}: {doing} failed{name} ({error.strerror}). {remedy_for(error)}.")


def remedy_for(error: OSError) -> str:
    """What to do about a failed call, as a sentence without its full stop."""
    return _REMEDIES.get(error.errno or 0, "Look after the disk, and repeat it")


def is_lost(error: OSError) -> bool:
    """Whether a failed call says something of the file; else of the system alone, such as too many open files."""
    return error.errno in _LOST


def says_nothing(error: BaseException) -> bool:
    """Whether an error of ours came of what the system would not let us do, and tells nothing of what is stored."""
    cause = error.__cause__
    if isinstance(cause, OSError):
        return not is_lost(cause)
    return isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", 0) & 0xFF in _UNABLE


def unreadable(agent_id: str, label: str, where: str, doing: str, error: OSError) -> StoreError:
    """A file that could not be opened or read: damage where the error tells of the file, else a plain StoreError."""
    if is_lost(error):
        return DamagedError(agent_id, label, where, f"it cannot be {doing} ({error.strerror})")
    return StoreError(
        f"agent {agent_id!r}: {label} cannot be {doing} ({error.strerror}). {remedy_for(error)}."
    )


@contextmanager
def typed(agent_id: str, doing: str) -> Iterator[None]:
    """Whatever the disk or SQLite raises in the block is a StoreError. Our own errors pass."""
    try:
        yield
    except AgentMemError:
        raise  # TurnTimeoutError is an OSError, too
    except sqlite3.Error as error:
        raise of_sqlite(agent_id, error) from error
    except OSError as error:
        raise of_disk(agent_id, doing, error) from error

"""What the disk and SQLite raise, as this package's errors: each names the agent, and the file if one is known.

Knows errors only; what was being done, and what it leaves behind, is its callers' affair.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentmem.errors import AgentBusyError, AgentMemError, DamagedError, StaleWriterError, StoreError

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_SIGNS = ("Could not decode to UTF-8", "no such table", "no such column", "malformed")
"""What SQLite says of a file that is not as it was made, under a code of no meaning."""
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def of_sqlite(agent_id: str, error: sqlite3.Error | UnicodeError) -> StoreError:
    """An error of SQLite: the index is damaged, in use, or the disk would not do as it was told.

    A UnicodeError comes of a damaged name that SQLite puts into its message.
    """
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if isinstance(error, UnicodeError) or code in _DAMAGE or any(sign in str(error) for sign in _SIGNS):
        return DamagedError(agent_id, "agent.db", "the index", str(error))
    if code in _BUSY:
        return AgentBusyError(f"agent {agent_id!r}: the index is in use ({error}); try again")
    return StoreError(f"agent {agent_id!r}: SQLite failed on agent.db: {error}")


def elsewhere(agent_id: str) -> StaleWriterError:
    """For a forked child of the process that opened an agent: nothing of it may be used there."""
    return StaleWriterError(f"agent {agent_id!r} was opened by the parent process; open it anew in this one")


def of_disk(agent_id: str, doing: str, error: OSError) -> StoreError:
    """A call to the file system that failed."""
    name = "" if error.filename is None else f" at {Path(error.filename).name}"
    return StoreError(
        f"agent {agent_id!r}: {doing} failed{name} ({error.strerror}). Look after the disk, and repeat it."
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

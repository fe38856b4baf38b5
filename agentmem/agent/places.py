"""Where agents live, and what time it is. Knows no turns."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from platformdirs import user_data_path

from agentmem.errors import InputError
from agentmem.store import DiskHome
from agentmem.store.base import Home


def find_home(home: str | Path | Home | None) -> Home:
    """Where all agents are: the argument, else ``AGENTMEM_HOME``, else the user's data folder."""
    if home is None:
        named = os.environ.get("AGENTMEM_HOME")
        return DiskHome(Path(named).expanduser() if named else user_data_path("agentmem"))
    if isinstance(home, (str, Path)):
        return DiskHome(Path(home).expanduser())
    return home


def end_of(expires_at: datetime | str | None) -> str | None:
    """When a turn may be dropped, as it is kept; None: never. Raises InputError."""
    return None if expires_at is None else moment(expires_at).isoformat()


def moment(at: datetime | str | None) -> datetime:
    """The time of a turn, with an offset: now, or what the caller says. Raises InputError."""
    if at is None:
        return datetime.now().astimezone()
    if isinstance(at, str):
        try:
            at = datetime.fromisoformat(at)
        except ValueError:
            raise InputError(f"{at!r} is not an ISO 8601 time such as '2026-03-01T09:30'") from None
    if not isinstance(at, datetime):
        raise InputError(f"a time must be a datetime or ISO 8601 text, got {type(at).__name__}")
    return at if at.tzinfo is not None else at.astimezone()

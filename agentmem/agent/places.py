"""Where agents live, and what time it is. Knows no turns."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from platformdirs import user_data_path

from agentmem.errors import InputError
from agentmem.store import DiskHome, MemoryKey
from agentmem.store.base import Home


def find_home(home: str | Path | Home | None, key: MemoryKey | None = None) -> Home:
    """Where all agents are: the argument, else ``AGENTMEM_HOME``, else the user's data folder.

    With a key, the argument or that of :func:`find_key`, agents there are encrypted. Raises InputError.
    """
    if key is not None and not isinstance(key, MemoryKey):
        raise InputError(f"key must be a MemoryKey, got {type(key).__name__}")
    if home is None or isinstance(home, (str, Path)):
        named = os.environ.get("AGENTMEM_HOME") if home is None else home
        place = Path(named).expanduser() if named else user_data_path("agentmem")
        if "\0" in str(place):
            raise InputError(f"home={str(place)!r} holds a null character, which no path has")
        if os.path.lexists(place) and not place.is_dir():
            raise InputError(f"{place} is no folder, so no agents can live there: name another home")
        return DiskHome(place, key=key or find_key())
    if not hasattr(home, "peek"):
        raise InputError(f"home must be a folder's path or a home, got {type(home).__name__}")
    if key is None:
        return home
    if not isinstance(home, DiskHome):
        raise InputError("a key needs a home on disk: nothing else is at rest")
    return home.with_key(key)


def find_key() -> MemoryKey | None:
    """The key that the environment names: the file ``AGENTMEM_KEY_FILE``, or the words ``AGENTMEM_PASSPHRASE``."""
    file, words = os.environ.get("AGENTMEM_KEY_FILE"), os.environ.get("AGENTMEM_PASSPHRASE")
    if file:
        return MemoryKey.read(Path(file).expanduser())
    return MemoryKey.from_passphrase(words) if words else None


def key_of(home: Home) -> MemoryKey | None:
    """The key that a home's agents are encrypted with."""
    return home.key if isinstance(home, DiskHome) else None


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

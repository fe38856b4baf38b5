"""How an agent's id becomes a folder name: any text goes in, nothing of it reaches the file system.

Knows no files.
"""

from __future__ import annotations

import hashlib
import unicodedata

from agentmem.errors import InputError

MAX_ID_CHARACTERS = 512


def checked_id(agent_id: str) -> str:
    """The id in Unicode's composed form (NFC), as it is kept. Raises InputError when it cannot be one."""
    if not isinstance(agent_id, str):
        raise InputError(f"an agent id is text, not {type(agent_id).__name__}")
    name = unicodedata.normalize("NFC", agent_id)
    if not 1 <= len(name) <= MAX_ID_CHARACTERS:
        raise InputError(f"an agent id has 1 to {MAX_ID_CHARACTERS} characters, not {len(name)}")
    bad = next((c for c in name if unicodedata.category(c) in ("Cc", "Cs")), None)
    if bad is not None:
        raise InputError(f"agent id {agent_id!r} holds {bad!r}; control characters cannot be part of an id")
    return name


def folder_name(agent_id: str) -> str:
    """The folder of a checked id: the SHA-256 of its UTF-8 bytes, in hex."""
    return hashlib.sha256(agent_id.encode()).hexdigest()

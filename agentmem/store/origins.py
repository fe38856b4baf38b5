"""Where a turn's words came from: the role, source and trust that each turn carries, and their defaults.

Plain values; knows no tables and no files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

_LEAST_TRUSTED_LAST: Final = ("assistant", "system", "user", "tool")
MAX_TRUST_CHARACTERS: Final = 64


def role_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """The role of a turn: that of its least trusted message. A reply counts only where nothing else was said."""
    roles = [str(message.get("role")) for message in messages]
    known = [_LEAST_TRUSTED_LAST.index(role) if role in _LEAST_TRUSTED_LAST else 4 for role in roles]
    return roles[known.index(max(known))] if roles else "user"


def default_trust(role: str) -> str:
    """The trust of a turn for which the caller names none: the name of its role."""
    return role

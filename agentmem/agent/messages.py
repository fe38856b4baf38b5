"""Checking messages, and dressing them with what the options add: a date stamp, a speaker's name.

Knows no template: what a message looks like in tokens is the engine's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, cast

from agentmem.config import MemoryConfig
from agentmem.engine.sampling import SamplingOptions
from agentmem.errors import InputError

ROLES = ("system", "user", "assistant", "tool")


def checked(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages as dicts of our own. Raises InputError for what no turn can be made of."""
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Iterable):
        raise InputError("messages must be a list of {'role', 'content'} dicts; chat() takes a plain text")
    wrong = [type(message).__name__ for message in messages if not isinstance(message, Mapping)]
    if wrong:
        raise InputError(f"each message must be a {{'role', 'content'}} dict, got {wrong[0]}")
    kept = [dict(message) for message in messages]
    if not kept:
        raise InputError("messages is empty; give at least one {'role', 'content'} dict")
    for place, message in enumerate(kept):
        _check_one(place, message)
    return kept


def user_message(text: str, speaker: str | None = None, role: str = "user") -> dict[str, Any]:
    """A message from plain text. Raises InputError."""
    if not isinstance(text, str):
        raise InputError(f"text must be a str, got {type(text).__name__}")
    if not text.strip():
        raise InputError("the text is empty; say something")
    message: dict[str, Any] = {"role": role, "content": text}
    if speaker is not None:
        if not isinstance(speaker, str) or not speaker.strip():
            raise InputError(f"speaker={speaker!r}: give a name, or None")
        message["name"] = speaker
    return message


def sampling_options(options: Mapping[str, object]) -> SamplingOptions:
    """Keyword options as one checked object. Raises InputError, naming the options there are."""
    known = [field.name for field in fields(SamplingOptions)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InputError(f"unknown option {', '.join(unknown)}; the options are {', '.join(known)}")
    return SamplingOptions(**cast("dict[str, Any]", dict(options)))


def dressed(
    messages: Sequence[Mapping[str, Any]], config: MemoryConfig, when: datetime
) -> list[dict[str, Any]]:
    """The messages as the template shall see them: ``[date] name: text`` for users, else unchanged."""
    return [_dress(message, config, when) for message in messages]


def _dress(message: Mapping[str, Any], config: MemoryConfig, when: datetime) -> dict[str, Any]:
    plain = dict(message)
    if plain["role"] != "user":
        return plain
    speaker = plain.pop("name", None)
    if speaker is not None:
        plain["content"] = f"{speaker}: {plain['content']}"
    if config.stamp is not None:
        plain["content"] = f"[{when.strftime(config.stamp)}] {plain['content']}"
    return plain


def _check_one(place: int, message: Mapping[str, Any]) -> None:
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise InputError(f"message {place} has role {role!r}; use one of {', '.join(ROLES)}")
    if not isinstance(content, str) and not (content is None and message.get("tool_calls")):
        raise InputError(f"message {place} ({role}): content must be a str, got {type(content).__name__}")
    if content is None and role != "assistant":
        raise InputError(f"message {place} ({role}) has no content; only an assistant's calls may go without")
    if role != "tool" and not (content or "").strip() and not message.get("tool_calls"):
        raise InputError(f"message {place} ({role}) is empty; leave it out or give it text")

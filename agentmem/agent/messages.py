"""Checking messages and tools, and dressing them with what the options add: a date stamp, a speaker's name.

A message's ``metadata`` is kept with it and shown in the history, but never to the template or the model.

Knows no template: what a message looks like in tokens is the engine's business.
"""

from __future__ import annotations

import json
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
        if "metadata" in message:
            message["metadata"] = _checked_metadata(place, message["metadata"])
    return kept


def checked_tools(tools: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    """The tools as dicts of our own; None when there are none. Raises InputError."""
    if tools is None:
        return None
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Iterable):
        raise InputError("tools must be a list of JSON schemas, one for each tool")
    kept = []
    for place, tool in enumerate(tools):
        if not isinstance(tool, Mapping):
            raise InputError(f"tool {place} must be a JSON schema as a dict, got {type(tool).__name__}")
        kept.append(_plain_json(f"tool {place}", tool))
    return kept or None


def checked_state(name: str, state_id: str | None) -> str | None:
    """A state id, "head" or None, as an argument of that name. Raises InputError."""
    if state_id is not None and not isinstance(state_id, str):
        raise InputError(
            f'{name}={state_id!r}: give a state id, "head", or None for the state before the first turn'
        )
    return state_id


def user_message(text: str, speaker: str | None = None, role: str = "user") -> dict[str, Any]:
    """A message from plain text. Raises InputError."""
    if not isinstance(text, str):
        raise InputError(f"text must be a str, got {type(text).__name__}")
    if not text.strip():
        raise InputError("the text is empty; say something")
    _check_unicode("the text", text)
    message: dict[str, Any] = {"role": role, "content": text}
    if speaker is not None:
        if not isinstance(speaker, str) or not speaker.strip():
            raise InputError(f"speaker={speaker!r}: give a name, or None")
        _check_unicode("the speaker", speaker)
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
    plain = {key: value for key, value in message.items() if key != "metadata"}
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
    _check_unicode(f"message {place} ({role})", content or "")


def _check_unicode(what: str, text: str) -> None:
    """Raise InputError for half a surrogate pair: no tokenizer takes one, and no file can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{what} holds {text[error.start]!r} at character {error.start}, which is no character: bytes that were not "
            "UTF-8, or half of an emoji. Decode them with their own encoding, or with errors='replace'"
        ) from None


def _checked_metadata(place: int, metadata: object) -> dict[str, Any]:
    if not isinstance(metadata, Mapping):
        raise InputError(f"message {place}: metadata must be a dict, got {type(metadata).__name__}")
    return _plain_json(f"message {place}: metadata", metadata)


def _plain_json(what: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of what was given, as JSON has it. Raises InputError."""
    try:
        return cast("dict[str, Any]", json.loads(json.dumps(dict(value), allow_nan=False)))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{what} is not plain JSON: {error}") from error

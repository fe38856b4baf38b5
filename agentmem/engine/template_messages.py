"""Messages as a template can take them: checked, marked, and merged where the template insists.

The rules, in words: a system message the template cannot take at its place is written as the user's,
in one message with the user's text that follows it; messages of a role the template refuses twice in
a row become one, a blank line between them. Knows no text of any template.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from agentmem.engine.template_cut import ROLES
from agentmem.engine.template_probe import TemplateFacts
from agentmem.engine.template_text import Message, TemplateText
from agentmem.errors import InputError

BLANK_LINE = "\n\n"


def checked(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Copies of the messages, each with a known role and a string as content.

    Raises:
        InputError: a role is unknown, or a content is missing, empty or not a string.
    """
    return [_checked(index, message) for index, message in enumerate(messages)]


def _checked(index: int, message: Message) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise InputError(
            f"message {index} is a {type(message).__name__}; give a mapping with 'role' and 'content'."
        )
    role = {"developer": "system"}.get(str(message.get("role")), message.get("role"))
    if role not in ROLES:
        raise InputError(f"message {index} has the role {role!r}; the roles are {', '.join(ROLES)}.")
    calls = message.get("tool_calls")
    content = message.get("content")
    if content is None and calls:
        content = ""
    if not isinstance(content, str):
        raise InputError(
            f"message {index} ({role}) has a {type(content).__name__} as content; give a string."
        )
    if not content and not calls and role != "tool":
        raise InputError(f"message {index} ({role}) is empty; give it some text, or leave it out.")
    copy = {key: value for key, value in message.items() if value is not None}
    copy.update(role=role, content=content)
    if calls:
        copy["tool_calls"] = [_with_parsed_arguments(index, call) for call in calls]
    return copy


def _with_parsed_arguments(index: int, call: Any) -> dict[str, Any]:
    """The call with its arguments as an object: templates print that as JSON, once."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise InputError(
            f"message {index} has the tool call {call!r}; "
            "give {'type': 'function', 'function': {'name': ..., 'arguments': {...}}}."
        )
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except json.JSONDecodeError as error:
            raise InputError(
                f"message {index}: the arguments of {function['name']!r} are no JSON object "
                f"({error}): {arguments!r}."
            ) from None
    return {**call, "function": {**function, "arguments": arguments}}


def marked(text: TemplateText, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages with control tokens marked wherever a sender could have put them."""
    done = []
    for message in messages:
        copy = dict(text.mark(message, trusted=message["role"] == "assistant"))
        copy["role"] = message["role"]
        done.append(copy)
    return done


def fitted(
    facts: TemplateFacts, messages: Sequence[Mapping[str, Any]], *, open_role: str | None
) -> list[dict[str, Any]]:
    """The messages with system messages moved and neighbours merged as the template needs it."""
    done: list[dict[str, Any]] = []
    previous, moved = open_role, False
    for message in messages:
        role = str(message["role"])
        displaced = role == "system" and not _takes_system(facts, previous)
        role = "user" if displaced else role
        mergeable = role in facts.merged_roles or (moved and role == "user")
        if done and mergeable and _can_join(done[-1], role, message):
            done[-1]["content"] += BLANK_LINE + message["content"]
        else:
            done.append({**message, "role": role})
        previous, moved = role, displaced
    return done


def _takes_system(facts: TemplateFacts, previous: str | None) -> bool:
    """Whether a system message may stand behind a message of that role (None: at the start)."""
    if previous in (None, "system"):
        return facts.system_role
    return facts.late_system


def _can_join(earlier: Mapping[str, Any], role: str, message: Mapping[str, Any]) -> bool:
    return earlier["role"] == role and not earlier.get("tool_calls") and not message.get("tool_calls")

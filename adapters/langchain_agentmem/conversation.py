"""A caller's list of LangChain messages as what :class:`agentmem.AgentMemory` takes, each with a key to know it by.

Says what a list means; does not say which of it is new (:mod:`langchain_agentmem.reconcile`), and knows no memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

from agentmem.errors import InputError
from langchain_agentmem.content_blocks import Flat, ToolCall, flattened, tool_call

ORIGIN = "langchain"
"""What the metadata of a message that came this way says of its origin."""
BLANK_LINE = "\n\n"

_ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "ai"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
"""What the roles of a ChatMessage mean."""
_KINDS: tuple[tuple[type[BaseMessage], str], ...] = (
    (HumanMessage, "user"),
    (AIMessage, "assistant"),
    (SystemMessage, "system"),
    (ToolMessage, "tool"),
)


@dataclass(frozen=True)
class Said:
    """One message of the caller's list. A user's message that holds tools' results is several."""

    message: Mapping[str, Any]
    """As ``AgentMemory.generate`` takes it: role, content, and what else there is."""
    key: str
    """See :func:`message_key`."""
    id: str | None
    """LangChain's id of the message."""
    state_id: str | None
    """The state after this message, if it is an answer out of a memory."""
    calls: tuple[str, ...] = ()
    """Ids of the tool calls it makes, those that could not be parsed among them."""

    @property
    def blank(self) -> bool:
        """Whether there is nothing to read in: an answer that was cut before it said or called anything."""
        message = self.message
        return (
            message["role"] == "assistant" and not message["content"].strip() and "tool_calls" not in message
        )


@dataclass(frozen=True)
class Conversation:
    """A caller's list, understood."""

    system: str | None
    """The system messages that the list begins with, a blank line between them; None if there is no text."""
    said: tuple[Said, ...]
    """All other messages, in their order; never empty."""


def read_conversation(messages: Sequence[BaseMessage], *, thread: str | None) -> Conversation:
    """What a caller's list says.

    Args:
        messages: LangChain messages; contents may be texts or lists of blocks.
        thread: the conversation it belongs to, noted with each message.

    Raises:
        InputError: there is nothing to answer, or a message cannot be used; names the message by its place.
    """
    listed = _checked(messages)
    leading = next((n for n, (_, role) in enumerate(listed) if role != "system"), len(listed))
    prompts = [_flat(place, message, "system").text for place, (message, _) in enumerate(listed[:leading])]
    if leading == len(listed):
        raise InputError(
            "messages holds system messages only, so there is nothing to answer; add a HumanMessage"
        )
    calls = _CallsMade(any(role == "assistant" for _, role in listed))
    said: list[Said] = []
    for place, (message, role) in enumerate(listed[leading:], leading):
        said += _understood(place, message, role, thread, calls)
    return Conversation(BLANK_LINE.join(text for text in prompts if text.strip()) or None, tuple(said))


def message_key(
    role: str,
    content: str | None,
    calls: Iterable[tuple[str, Mapping[str, Any]]] = (),
    tool_call_id: str | None = None,
) -> str:
    """What a message is known by: a hash of its role, text, calls (names and arguments) and the call it answers.

    White space around the text and the order of arguments do not matter; ids of calls made do not, either.
    Arguments are plain JSON values.
    """
    made = [[name, arguments] for name, arguments in calls]
    parts = [role, (content or "").strip(), made, tool_call_id]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def key_of(message: Mapping[str, Any]) -> str:
    """The key of a message as ``AgentMemory`` takes and holds it, its calls in OpenAI's form."""
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    calls = [(function["name"], function["arguments"]) for function in functions]
    return message_key(message["role"], message.get("content"), calls, message.get("tool_call_id"))


# -- one message ---------------------------------------------------------------------------------------


def _checked(messages: Sequence[BaseMessage]) -> list[tuple[BaseMessage, str]]:
    """The messages with their roles. Raises InputError for a list, or a message, of the wrong kind."""
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Iterable):
        raise InputError(f"messages is a {type(messages).__name__}; give a list of LangChain messages")
    listed = list(messages)
    if not listed:
        raise InputError("messages is empty; give at least one HumanMessage")
    return [(message, _role(place, message)) for place, message in enumerate(listed)]


def _role(place: int, message: object) -> str:
    for kind, role in _KINDS:
        if isinstance(message, kind):
            return role
    where = _where(place, message)
    if isinstance(message, ChatMessage):
        if message.role.casefold() in _ROLES:
            return _ROLES[message.role.casefold()]
        raise InputError(
            f"{where} has the role {message.role!r}; the roles are {', '.join(_ROLES)}. For several speakers use "
            "HumanMessage(name=...), for a tool's result ToolMessage"
        )
    if isinstance(message, FunctionMessage):
        raise InputError(f"{where} names no call it answers; use ToolMessage(content, tool_call_id=...)")
    if isinstance(message, RemoveMessage):
        raise InputError(f"{where} is an order to a list of messages, not one of them; carry it out first")
    raise InputError(
        f"{where} is no message type that is known; use LangChain's Human, AI, System and ToolMessage"
    )


def _understood(
    place: int, message: BaseMessage, role: str, thread: str | None, calls: _CallsMade
) -> list[Said]:
    """What one message of the list says: one message, or several if it brings tools' results."""
    where = _where(place, message)
    flat = _flat(place, message, role)
    if role == "assistant":
        return [_answer(where, message, flat, thread, calls)]
    if isinstance(message, ToolMessage):
        return [_result(where, message, flat.text, thread, calls)]
    rows = [
        {
            "role": "tool",
            "content": _failed(one.text) if one.failed else one.text,
            **calls.answer(where, one.call_id),
        }
        for one in flat.results
    ]
    if flat.text.strip() or not rows:
        _refuse_empty(where, flat.text)
        name = {"name": message.name} if role == "user" and (message.name or "").strip() else {}
        rows.append({"role": role, "content": flat.text, **name})
    # the id stands for the message as a whole, so its last part alone bears it
    return [*(_said(row, None, thread) for row in rows[:-1]), _said(rows[-1], message.id, thread)]


def _answer(where: str, message: BaseMessage, flat: Flat, thread: str | None, calls: _CallsMade) -> Said:
    made: list[ToolCall] = []
    broken: list[str] = []
    thoughts = flat.thoughts or bool(message.additional_kwargs.get("reasoning_content"))
    if isinstance(message, AIMessage):
        made = [tool_call(call["name"], call["args"], call["id"], where) for call in message.tool_calls]
        broken = [str(call["id"]) for call in message.invalid_tool_calls if call["id"] is not None]
        thoughts = thoughts or bool(message.invalid_tool_calls)
    known = {*(call.id for call in made), *broken}
    made += [call for call in flat.calls if call.id not in known]
    if "function_call" in message.additional_kwargs and not made:
        raise InputError(f"{where} holds a function_call of OpenAI's former API; give it tool_calls instead")
    state_id = _state_id(message)
    if not made and state_id is None and not thoughts:
        _refuse_empty(where, flat.text)
    row: dict[str, Any] = {"role": "assistant", "content": flat.text}
    if made:
        row["tool_calls"] = [_openai_form(call) for call in made]
    calls.note(made, broken)
    ids = (*(call.id for call in made if call.id is not None), *broken)
    return _said(row, message.id, thread, state_id, ids)


def _result(where: str, message: ToolMessage, text: str, thread: str | None, calls: _CallsMade) -> Said:
    text = _failed(text) if message.status == "error" else text
    row = {"role": "tool", "content": text, **calls.answer(where, message.tool_call_id)}
    if message.name:
        row["name"] = message.name
    return _said(row, message.id, thread)


def _said(
    row: dict[str, Any],
    message_id: str | None,
    thread: str | None,
    state_id: str | None = None,
    calls: tuple[str, ...] = (),
) -> Said:
    noted = {**row, "metadata": {"id": message_id, "thread": thread, "origin": ORIGIN}}
    return Said(noted, key_of(row), message_id, state_id, calls)


@dataclass
class _CallsMade:
    """The tool calls that the list has made so far, by id."""

    required: bool
    """Whether a result must answer one of them: the list holds answers, so it is not just the newest messages."""

    def __post_init__(self) -> None:
        self._names: dict[str, str | None] = {}

    def note(self, made: Iterable[ToolCall], broken: Iterable[str]) -> None:
        self._names |= {call.id: call.name for call in made if call.id is not None}
        self._names |= dict.fromkeys(broken)

    def answer(self, where: str, call_id: str) -> dict[str, Any]:
        """What a result says of its call. Raises InputError if there is no such call."""
        if self.required and call_id not in self._names:
            known = ", ".join(map(repr, self._names)) or "none"
            raise InputError(
                f"{where} answers the tool call {call_id!r}, which no message before it makes (calls so far: {known}); "
                "send the AIMessage that makes it too, or leave this one out"
            )
        name = self._names.get(call_id)
        return {"tool_call_id": call_id} if name is None else {"tool_call_id": call_id, "name": name}


def _flat(place: int, message: BaseMessage, role: str) -> Flat:
    """The content, flattened. Raises InputError for what this role cannot hold."""
    where = _where(place, message)
    flat = flattened(message.content, where, joint="" if role == "assistant" else "\n")
    if flat.calls and role != "assistant":
        raise InputError(f"{where} makes a tool call; only an AIMessage can")
    if flat.results and role != "user":
        raise InputError(f"{where} holds a tool_result block; put it into a ToolMessage")
    try:
        "".join((flat.text, *(one.text for one in flat.results))).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: its text is not valid Unicode ({error}); remove the lone surrogate"
        ) from None
    return flat


def _refuse_empty(where: str, text: str) -> None:
    if not text.strip():
        raise InputError(f"{where} is empty; give it some text, or leave it out")


def _failed(text: str) -> str:
    """A tool's failure as the model shall read it: it says that it is one."""
    return text if text.lstrip().casefold().startswith("error") else f"Error: {text}"


def _openai_form(call: ToolCall) -> dict[str, Any]:
    named = {"type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}}
    return named if call.id is None else {**named, "id": call.id}


def _state_id(message: BaseMessage) -> str | None:
    ours = message.response_metadata.get("agentmem")
    found = ours.get("state_id") if isinstance(ours, Mapping) else None
    return found if isinstance(found, str) else None


def _where(place: int, message: object) -> str:
    return f"message {place} ({type(message).__name__})"

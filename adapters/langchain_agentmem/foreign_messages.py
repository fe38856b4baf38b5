"""Another model's messages, read as those of our own model are, but leniently.

They were accepted by another model, so what is no text is named instead of refused, and what says nothing is left
out. Knows no memory and no template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

from agentmem import InputError
from langchain_agentmem.content_blocks import flattened
from langchain_agentmem.conversation import Said, key_of, read_conversation

_ROLES = {"user", "human", "assistant", "ai", "system", "developer"}


def read_leniently(messages: Sequence[BaseMessage], thread: str | None = None) -> list[Said]:
    """The messages that say something, in order, each with the key it is known by.

    Raises:
        InputError: a tool call whose arguments cannot be written down.
    """
    return [said for message in messages for said in _read(message, thread)]


def _read(message: BaseMessage, thread: str | None) -> list[Said]:
    if isinstance(message, RemoveMessage) or message.additional_kwargs.get("lc_source") == "summarization":
        return []  # a summary repeats what was told before
    readable = _readable(message)
    if not _says(readable):
        return []
    if isinstance(readable, SystemMessage):
        as_user = HumanMessage(readable.content, id=readable.id)
        (said,) = read_conversation([as_user], thread=thread).said
        row = {**said.message, "role": "system"}
        return [Said(row, key_of(row), said.id, None)]
    return [said for said in read_conversation([readable], thread=thread).said if not said.blank]


def _says(message: BaseMessage) -> bool:
    """Whether there is text, a call or a result in it; an empty result of a tool says that there was none."""
    if isinstance(message, ToolMessage) or getattr(message, "tool_calls", None):
        return True
    flat = flattened(message.content, "message", joint="")
    return bool(flat.text.strip() or flat.calls or flat.results)


def _readable(message: BaseMessage) -> BaseMessage:
    """The message with nothing in it that a text memory could not read."""
    content = _clean(message.content)
    if isinstance(message, FunctionMessage):
        return ToolMessage(content, tool_call_id=message.name, name=message.name, id=message.id)
    if isinstance(message, ChatMessage):
        role = message.role.casefold()
        if role in {"system", "developer"}:
            return SystemMessage(content, id=message.id)
        if role not in _ROLES:
            return HumanMessage(content, name=message.role, id=message.id)
    return message.model_copy(update={"content": content})


def _clean(content: Any) -> Any:
    if isinstance(content, str):
        return content.encode("utf-8", "replace").decode()
    return [_clean(part) if isinstance(part, str) else _text_of(part) for part in content]


def _text_of(block: Any) -> Any:
    """A block as it is, or, if it is no text, the word for it in brackets."""
    try:
        flat = flattened([block], "message", joint="")
    except InputError:
        kind = block.get("type") if isinstance(block, Mapping) else None
        return {"type": "text", "text": f"[{str(kind or 'attachment').removesuffix('_url')}]"}
    if flat.text and not flat.calls and not flat.results:
        return {"type": "text", "text": _clean(flat.text)}
    return block

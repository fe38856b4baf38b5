"""A message's content as plain text: the block forms of LangChain, OpenAI and Anthropic, flattened.

Text is kept, a tool's call or result is handed out beside it, thoughts are left out: no model reads another's. What
is not text is refused. Knows one content; knows nothing of conversations, roles or models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentmem.errors import InputError

Content = str | Sequence[str | Mapping[str, Any]]

_TEXTS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "text-plain": "text",
    "refusal": "refusal",
}
"""Block type -> where its text is."""
_THOUGHTS = {"thinking", "redacted_thinking", "reasoning", "reasoning_content"}
_CALLS = {"tool_call", "tool_use", "function_call"}
_REPEATED = {"tool_call_chunk", "input_json_delta", "invalid_tool_call"}
"""Pieces of calls that a streamed message also holds whole, beside its content."""
_NOT_TEXT = {
    **dict.fromkeys(("image", "image_url", "input_image"), "an image"),
    **dict.fromkeys(("audio", "input_audio"), "audio"),
    **dict.fromkeys(("file", "input_file", "document", "text-plain", "media"), "a file"),
    "video": "a video",
}


@dataclass(frozen=True)
class ToolCall:
    """A call as a message holds it."""

    name: str
    arguments: Mapping[str, Any]
    id: str | None


@dataclass(frozen=True)
class ToolResult:
    """A tool's answer that stands in a user's message, as Anthropic writes it."""

    call_id: str
    text: str
    failed: bool


@dataclass(frozen=True)
class Flat:
    """A content, flattened."""

    text: str
    calls: Sequence[ToolCall] = ()
    results: Sequence[ToolResult] = ()
    thoughts: bool = False
    """Whether there were thoughts, which are left out of ``text``."""


def flattened(content: Content, where: str, *, joint: str) -> Flat:
    """The content as text, calls and results.

    Args:
        content: a text, or a list of texts and blocks.
        where: how an error names the message.
        joint: what is put between two texts: nothing between pieces of an answer, a line break between
            the parts that others put together.

    Raises:
        InputError: a block is no text, is of an unknown type, or lacks what its type must have.
    """
    if isinstance(content, str):
        return Flat(content)
    found = _Found(where)
    for index, block in enumerate(content):
        found.add(index, block)
    text = joint.join(text for text in found.texts if text)
    return Flat(text, tuple(found.calls), tuple(found.results), found.thoughts)


def tool_call(name: object, arguments: object, call_id: object, where: str) -> ToolCall:
    """A call, checked. Raises InputError for one without a name, or whose arguments are no JSON object."""
    if not isinstance(name, str) or not name:
        raise InputError(f"{where}: a tool call has the name {name!r}; give the name of the tool")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except json.JSONDecodeError as error:
            raise InputError(
                f"{where}: the arguments of the call of {name!r} are no JSON ({error}); give an object"
            ) from None
    if not isinstance(arguments, Mapping):
        kind = type(arguments).__name__
        raise InputError(f"{where}: the arguments of the call of {name!r} are a {kind}; give an object")
    try:
        written = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        written.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{where}: the arguments of the call of {name!r} cannot be written as JSON ({error}); "
            "give texts, numbers, booleans, None, lists and dicts of them"
        ) from None
    return ToolCall(name, json.loads(written), None if call_id is None else str(call_id))


@dataclass
class _Found:
    """What the blocks of one content have told so far."""

    where: str
    texts: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    results: list[ToolResult] = field(default_factory=list)
    thoughts: bool = False

    def add(self, index: int, block: object) -> None:
        if isinstance(block, str):
            self.texts.append(block)
            return
        if not isinstance(block, Mapping):
            raise self._wrong(index, f"is a {type(block).__name__}; give a text or a block")
        kind = block.get("type", "text" if "text" in block else None)
        if kind == "non_standard" and isinstance(block.get("value"), Mapping):
            self.add(index, block["value"])
        elif kind in _TEXTS and isinstance(block.get(_TEXTS[kind]), str):
            self.texts.append(block[_TEXTS[kind]])
        elif kind in _CALLS:
            self.calls.append(self._call(block))
        elif kind == "tool_result":
            self.results.append(self._result(index, block))
        elif kind in _THOUGHTS:
            self.thoughts = True
        elif kind not in _REPEATED:
            raise self._refusal(index, kind)

    def _call(self, block: Mapping[str, Any]) -> ToolCall:
        arguments: object = next((block[key] for key in ("args", "input", "arguments") if key in block), {})
        return tool_call(block.get("name"), arguments, block.get("call_id", block.get("id")), self.where)

    def _result(self, index: int, block: Mapping[str, Any]) -> ToolResult:
        call_id = block.get("tool_use_id", block.get("tool_call_id"))
        if not isinstance(call_id, str) or not call_id:
            raise self._wrong(index, "is a tool_result without a tool_use_id; name the call it answers")
        inside = f"{self.where}, tool_result of {call_id!r}"
        text = flattened(block.get("content") or "", inside, joint="\n").text
        return ToolResult(call_id, text, failed=bool(block.get("is_error")))

    def _refusal(self, index: int, kind: object) -> InputError:
        if kind in _NOT_TEXT:
            thing = _NOT_TEXT[str(kind)]
            return self._wrong(
                index, f"is {thing}, but this model reads text only; put what matters in it into words"
            )
        if kind in _TEXTS:
            return self._wrong(index, f"has the type {kind!r} and no text; give its {_TEXTS[str(kind)]!r}")
        known = ", ".join(sorted({*_TEXTS, *_CALLS, "tool_result", "thinking", "reasoning"}))
        return self._wrong(index, f"has the unknown type {kind!r}; the types are {known}")

    def _wrong(self, index: int, what: str) -> InputError:
        return InputError(f"{self.where}: content block {index} {what}")

"""How tools and calls look to one model: in its own template's words where it has them, else in ours.

Knows a model's template by what it can do, never by name. Knows no memory and no grammar.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from agentmem import LanguageModel
from agentmem.engine.tool_syntax import HERMES, ToolSyntax
from langchain_agentmem.conversation import Said, message_key
from langchain_agentmem.reply_parser import ParsedCall, may_hold_parts, parse_reply
from langchain_agentmem.tool_prompt import render_calls


@dataclass(frozen=True)
class ToolStyle:
    """What a model's template does with tools."""

    syntax: ToolSyntax
    """How a call looks in a reply."""
    native: bool
    """The template writes tools and calls itself."""
    result_role: bool
    """The template takes results in messages of role "tool"."""
    opens_thinking: bool
    """Replies begin inside a thinking block."""


_styles: WeakKeyDictionary[LanguageModel, ToolStyle] = WeakKeyDictionary()


def tool_style(model: LanguageModel) -> ToolStyle:
    """The style of a model; probed once."""
    style = _styles.get(model)
    if style is None:
        style = _styles[model] = _probe(model)
    return style


def told(said: Said, style: ToolStyle) -> dict[str, Any]:
    """A caller's message as this model is told it. The key of the original is noted, to know it again."""
    message = dict(said.message)
    message["metadata"] = {**(message.get("metadata") or {}), "key": said.key}
    several = len(message.get("tool_calls") or ()) > 1
    if style.native and not (several and style.syntax.between is None):
        return message
    if message["role"] == "assistant" and message.get("tool_calls"):
        calls = [_parsed(call) for call in message.pop("tool_calls")]
        parts = [message["content"] or "", render_calls(calls, style.syntax)]
        message["content"] = "\n".join(part for part in parts if part)
    if message["role"] == "tool" and not style.result_role:
        message["role"] = "user"
        message["content"] = f"<tool_response>\n{message['content']}\n</tool_response>"
        message.pop("tool_call_id", None)
        message.pop("name", None)
    return message


def recognised(said: Said, style: ToolStyle) -> Said:
    """A caller's answer with the key that the memory would give it: calls left in its text count as calls."""
    if said.message["role"] != "assistant" or not may_hold_parts(said.message["content"], style.syntax):
        return said
    bare = {name: value for name, value in said.message.items() if name != "metadata"}
    return replace(said, key=key_of(style)(bare))


def key_of(style: ToolStyle) -> Callable[[Mapping[str, Any]], str]:
    """How a held message is known again in a caller's list."""

    def key(message: Mapping[str, Any]) -> str:
        noted = (message.get("metadata") or {}).get("key")
        if noted is not None:
            return str(noted)
        text = str(message.get("content") or "")
        calls = [_parsed(call) for call in message.get("tool_calls") or ()]
        if message["role"] == "assistant" and may_hold_parts(text, style.syntax):
            found = parse_reply(text, style.syntax)
            text, calls = found.text, [*found.calls, *calls]
        pairs = [(call.name, call.arguments) for call in calls]
        return message_key(str(message["role"]), text, pairs, message.get("tool_call_id"))

    return key


def _parsed(call: Mapping[str, Any]) -> ParsedCall:
    function = call["function"]
    return ParsedCall(function["name"], function["arguments"])


def _probe(model: LanguageModel) -> ToolStyle:
    facts, syntax = model.template.facts, model.template.tool_syntax
    native = facts.has_tools and syntax is not None
    return ToolStyle(
        syntax if native and syntax else HERMES, native, facts.writes_results, facts.opens_thinking
    )

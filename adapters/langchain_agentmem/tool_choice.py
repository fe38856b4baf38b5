"""Tools and the choice among them, in one form: OpenAI's. Knows nothing of prompts, grammars or models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.utils.function_calling import convert_to_openai_tool

from agentmem.errors import InputError

AUTO, ANY, NONE = "auto", "any", "none"


def openai_tools(tools: Sequence[Any]) -> list[dict[str, Any]]:
    """Tools of any kind LangChain knows as ``{"type": "function", "function": {...}}``."""
    return [convert_to_openai_tool(tool) for tool in tools]


def distinct(tools: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """The tools, each once. Raises InputError when two different ones have the same name."""
    by_name: dict[str, dict[str, Any]] = {}
    for tool in tools:
        if by_name.setdefault(name_of(tool), tool) != tool:
            raise InputError(f"two different tools are called {name_of(tool)!r}; give each a name of its own")
    return tuple(by_name.values())


def name_of(tool: dict[str, Any]) -> str:
    """The name of a tool in OpenAI's form."""
    return str(tool["function"]["name"])


def checked_choice(choice: object, tools: Sequence[dict[str, Any]]) -> str:
    """What was chosen: "auto", "any", "none", or a tool's name. Raises InputError for a name that no tool has."""
    names = [name_of(tool) for tool in tools]
    if isinstance(choice, dict):
        function = choice.get("function")
        choice = (
            function.get("name") if isinstance(function, dict) else choice.get("name", choice.get("type"))
        )
    if choice in names:
        return str(choice)
    if choice is None or choice == AUTO:
        return AUTO
    if choice is True or choice in {ANY, "required"}:
        if not names:
            raise InputError(f"tool_choice={choice!r} without tools; give at least one")
        return ANY
    if choice is False or choice == NONE:
        return NONE
    raise InputError(
        f"tool_choice={choice!r}: use 'auto', 'any', 'none' or a tool's name ({', '.join(names) or 'there are none'})"
    )

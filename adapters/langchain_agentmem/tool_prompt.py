"""Tools and calls in words, for models whose chat template has no place for them.

The wording is the one that Hermes 2 Pro was trained on and Qwen took over, so most open models have
seen it. Knows how calls are written; knows no template and no model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from agentmem.engine.tool_syntax import ToolSyntax
from langchain_agentmem.reply_parser import ParsedCall


def tools_message(tools: Sequence[Mapping[str, Any]], syntax: ToolSyntax) -> str:
    """The system text that tells a model its tools, given in OpenAI's form, and how to call one."""
    lines = "\n".join(_json(tool) for tool in tools)
    call = f'{{"{syntax.name_key}": <function-name>, "{syntax.arguments_key}": <args-json-object>}}'
    several = "For each function call, write" if syntax.between is not None else "To call a function, write"
    return (
        "# Tools\n\n"
        "You may call one or more functions to assist with the user query. Answer without a call where "
        "none is needed.\n\n"
        f"These are the functions, as JSON, one in each line:\n<tools>\n{lines}\n</tools>\n\n"
        f"{several} a JSON object with its name and its arguments:\n{_written(call, syntax)}"
    )


def render_calls(calls: Sequence[ParsedCall], syntax: ToolSyntax) -> str:
    """An assistant's calls as the text of a reply; empty without calls.

    Parsing the text gives the calls again.
    """
    if not calls:
        return ""
    bodies = [_json({syntax.name_key: call.name, syntax.arguments_key: call.arguments}) for call in calls]
    between = "\n" if syntax.between is None else syntax.between
    if syntax.listed:
        return _written(between.join(bodies), syntax)
    return between.join(_written(body, syntax) for body in bodies)


def _written(body: str, syntax: ToolSyntax) -> str:
    return syntax.before + (f"[{body}]" if syntax.listed else body) + syntax.after


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)

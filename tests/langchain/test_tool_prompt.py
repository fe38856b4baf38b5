"""Tools and calls in words."""

from __future__ import annotations

import json

import pytest

from agentmem.engine.tool_syntax import HERMES, ToolSyntax
from langchain_agentmem.reply_parser import ParsedCall, ParsedReply, parse_reply
from langchain_agentmem.tool_prompt import render_calls, tools_message

LLAMA = ToolSyntax("", "", "name", "parameters", between=None)
MISTRAL = ToolSyntax(" ", "", "name", "arguments", between=", ", listed=True, opener="[TOOL_CALLS]")
WORDED = ToolSyntax("CALLS: ", " END", "tool", "args", between=",", listed=True)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Größe of {name}",
            "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
        },
    }
    for name in ("look", "listen")
]


@pytest.mark.parametrize("syntax", [HERMES, LLAMA, MISTRAL, WORDED])
def test_rendered_calls_are_parsed_again(syntax: ToolSyntax) -> None:
    """What is written for calls is read as those calls, in every syntax."""
    calls = [ParsedCall("look", {"at": '</tool_call>"\n你好', "n": [1, None]}), ParsedCall("listen", {})]

    assert parse_reply(render_calls(calls, syntax), syntax) == ParsedReply("", "", calls, [])
    assert parse_reply(render_calls(calls[:1], syntax), syntax) == ParsedReply("", "", calls[:1], [])


def test_calls_as_hermes_writes_them() -> None:
    """One call in a line, between its tags, the arguments as they are, not escaped."""
    calls = [ParsedCall("look", {"at": "München"}), ParsedCall("listen", {})]

    assert render_calls(calls, HERMES) == (
        '<tool_call>\n{"name": "look", "arguments": {"at": "München"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "listen", "arguments": {}}\n</tool_call>'
    )
    assert render_calls([], HERMES) == ""


@pytest.mark.parametrize("syntax", [HERMES, LLAMA, WORDED])
def test_the_tools_are_told_whole(syntax: ToolSyntax) -> None:
    """The text holds every tool as JSON, and the form of a call."""
    text = tools_message(TOOLS, syntax)
    lines = text.partition("<tools>\n")[2].partition("\n</tools>")[0].splitlines()

    assert [json.loads(line) for line in lines] == TOOLS
    assert "Größe" in text
    assert text.endswith(syntax.after)
    assert f'{{"{syntax.name_key}": <function-name>, "{syntax.arguments_key}": <args-json-object>}}' in text
    assert tools_message(TOOLS, syntax) == text

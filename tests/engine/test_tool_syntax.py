"""How a template writes tool calls, read off the template."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from agentmem.engine.template import ChatTemplate
from agentmem.engine.tool_syntax import HERMES, ToolSyntax
from support.templates import CASES, CHATML, tokenizer_for

WRITTEN = {
    "qwen2.5": HERMES,
    "qwen3": HERMES,
    "llama3.1": ToolSyntax("", "", "name", "parameters", between=None),
    "mistral-v3": ToolSyntax(" ", "", "name", "arguments", between=", ", listed=True, opener="[TOOL_CALLS]"),
}
"""What comes out for the templates that write calls as JSON; all others give none."""


def chatml_with(calls: str) -> ChatTemplate:
    """ChatML whose replies also write their calls, by that piece of a template."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer_for("chatml").backend_tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|call|>"]})
    written = CHATML.replace("message['content'] + '<|im_end|>'", "message['content']")
    written = written.replace(" + '\n'}}", f"}}}}{calls}{{{{ '<|im_end|>\n' }}}}")
    assert calls in written
    tokenizer.chat_template = written
    return ChatTemplate(tokenizer)


def each(call: str) -> str:
    """That piece of a template for each call ``f`` of a message."""
    return "{% for c in message['tool_calls'] or [] %}{% set f = c['function'] %}" + call + "{% endfor %}"


@pytest.mark.parametrize("name", sorted(CASES))
def test_syntax_of_well_known_templates(name: str) -> None:
    """Qwen's and Llama's calls are read off their templates; a template without calls has no syntax."""
    assert ChatTemplate(tokenizer_for(name)).tool_syntax == WRITTEN.get(name)


def test_special_tokens_around_each_call_in_a_list() -> None:
    """Granite's way: a special token, then one list."""
    calls = (
        "{% if message['tool_calls'] %}<|call|>[{% for c in message['tool_calls'] %}"
        "{{ c['function'] | tojson }}{{ ', ' if not loop.last else '' }}{% endfor %}]{% endif %}"
    )

    assert chatml_with(calls).tool_syntax == ToolSyntax(
        "", "", "name", "arguments", between=", ", listed=True, opener="<|call|>"
    )


def test_text_around_a_list() -> None:
    """A list between fixed texts is told from several calls with texts of their own."""
    calls = (
        "{% if message['tool_calls'] %}CALLS: [{% for c in message['tool_calls'] %}"
        "{{ c['function'] | tojson }}{{ ',' if not loop.last else '' }}{% endfor %}] END{% endif %}"
    )

    assert chatml_with(calls).tool_syntax == ToolSyntax(
        "CALLS: ", " END", "name", "arguments", between=",", listed=True
    )


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ("<function={{ f['name'] }}>{{ f['arguments']['at'] }}</function>", "XML"),
        ("{{ f['name'] }}\n{{ f['arguments'] | tojson }}", "the name stands outside the JSON"),
        (
            '{"id": "x", "name": "{{ f[\'name\'] }}", "arguments": {{ f[\'arguments\'] | tojson }}}',
            "more keys",
        ),
        ('{"arguments": {{ f[\'arguments\'] | tojson }}, "name": "{{ f[\'name\'] }}"}', "the name is last"),
        ("{{ f | tojson }}<|call|>", "a special token behind the call, which the text does not show"),
        ("{{ raise_exception('no') if f else '' }}", "it refuses"),
    ],
)
def test_other_ways_have_no_syntax(call: str, why: str) -> None:
    """Calls that are no JSON between texts that show give None, whatever they are."""
    assert chatml_with(each(call)).tool_syntax is None, why


def test_calls_with_texts_of_their_own() -> None:
    """The text between two calls is told from what ends one and begins the next."""
    assert chatml_with(each("(call){{ f | tojson }}(/call); ")).tool_syntax == ToolSyntax(
        "(call)", "(/call); ", "name", "arguments", between=""
    )


def test_a_reply_of_one_call_only() -> None:
    """A template that refuses two calls says so."""
    calls = each(
        "{{ raise_exception('one') if message['tool_calls'] | length > 1 else '' }}<c>{{ f | tojson }}</c>"
    )

    assert chatml_with(calls).tool_syntax == ToolSyntax("<c>", "</c>", "name", "arguments", between=None)


def test_a_template_that_opens_the_thinking() -> None:
    """The thinking that a generation prompt begins is not part of how a call is written."""
    template = chatml_with(each("<c>{{ f | tojson }}</c>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer_for("chatml").backend_tokenizer)
    source = template._text.source
    tokenizer.chat_template = source.replace("assistant\n' }}", "assistant\n<think>\n' }}")
    thinking = ChatTemplate(tokenizer)

    assert thinking.facts.opens_thinking
    assert (
        thinking.tool_syntax
        == template.tool_syntax
        == ToolSyntax("<c>", "</c>", "name", "arguments", between="")
    )

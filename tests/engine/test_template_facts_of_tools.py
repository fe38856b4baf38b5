"""Calls and results that a chat template would leave out are refused: nothing is lost without a word."""

from __future__ import annotations

import pytest

from agentmem.engine.template import ChatTemplate
from agentmem.errors import TemplateError
from support.templates import CASES, tokenizer_for

ASKED = {"role": "user", "content": "Where is the cat?"}
CALLED = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"type": "function", "id": "call00001", "function": {"name": "look", "arguments": {"at": "attic"}}}
    ],
}
FIRST = {"role": "tool", "content": "nothing seen", "name": "look", "tool_call_id": "call00001"}
SECOND = {**FIRST, "content": "a purring sound"}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("messages", [[ASKED, CALLED, FIRST], [ASKED, CALLED, FIRST, SECOND]])
def test_all_is_written_or_refused(name: str, messages: list[dict[str, object]]) -> None:
    """A delta holds the call and every result, or it is a typed error."""
    tokenizer = tokenizer_for(name)
    template = ChatTemplate(tokenizer)
    wanted = ["look", "attic", *(str(message["content"]) for message in messages[2:])]

    try:
        text = tokenizer.decode(template.delta(None, messages, reply=True).ids)
    except TemplateError:
        assert not (template.facts.writes_calls and template.facts.writes_results)
        return

    assert [words for words in wanted if words not in text] == []


def test_what_templates_write() -> None:
    """Qwen's and Mistral's write calls and results; plain ChatML writes results, and no calls."""
    facts = {
        name: ChatTemplate(tokenizer_for(name)).facts for name in ("qwen2.5", "mistral-v3", "chatml", "phi3")
    }

    assert [(f.writes_calls, f.writes_results) for f in facts.values()] == [
        (True, True),
        (True, True),
        (False, True),
        (False, False),
    ]

"""How tools look to each chat template: nothing that a tool returned is lost on the way to the model."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from agentmem import AgentMemory
from support.langchain_agents import chat_model
from support.templates import CASES
from support.tiny_language_model import language_model


def call(name: str, n: int) -> dict[str, Any]:
    """A tool call of an earlier answer."""
    return {"name": name, "args": {"place": "attic"}, "id": f"qxcall00{n}", "type": "tool_call"}


@pytest.mark.parametrize("template", CASES)
def test_calls_and_results_reach_the_model(template: str) -> None:
    """Two calls and their two results, imported from another model, are all in the tokens that are read."""
    llm = chat_model(model=language_model(template=template), agent_id="ada")
    messages: list[BaseMessage] = [
        HumanMessage("Where is the cat?"),
        AIMessage("", tool_calls=[call("look", 1), call("listen", 2)]),
        ToolMessage("nothing seen", tool_call_id="qxcall001", name="look"),
        ToolMessage("a purring sound", tool_call_id="qxcall002", name="listen"),
    ]

    llm.invoke(messages)

    with AgentMemory.resume("ada", home=llm.home, model=llm.model) as memory:
        text = memory.tokenizer.decode(memory._store.token_ids(0, memory.tokens_held))
    assert all(words in text for words in ("look", "listen", "attic", "nothing seen", "a purring sound"))

"""Agents of LangGraph on tiny chat models: made, talked to, and what they say of the memory."""

from __future__ import annotations

from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver

from langchain_agentmem import ChatInfLLM


def config(thread: str = "t", **more: Any) -> Any:
    """A call's address."""
    return {"configurable": {"thread_id": thread, **more}}


def human(*texts: str) -> dict[str, Any]:
    """Input of a graph."""
    return {"messages": [HumanMessage(text) for text in texts]}


def mark(message: AIMessage) -> dict[str, Any]:
    """What an answer says of the memory it came from."""
    return dict(message.response_metadata["agentmem"])


def new_tokens(message: AIMessage) -> int:
    """How many tokens were read for an answer."""
    assert message.usage_metadata is not None
    return message.usage_metadata["input_token_details"]["cache_creation"]


def shown(messages: list[Any]) -> list[tuple[str, str]]:
    """A thread's messages as (role, text), the way a memory holds them."""
    roles = {"human": "user", "ai": "assistant", "tool": "tool", "system": "system"}
    return [(roles[message.type], message.content) for message in messages]


def talk(agent: Any, *texts: str, thread: str = "t") -> list[AIMessage]:
    """Say things one after the other; the answers."""
    return [agent.invoke(human(text), config(thread))["messages"][-1] for text in texts]


def plain_agent(llm: ChatInfLLM, **options: Any) -> Any:
    """An agent without tools, its threads in memory."""
    return create_agent(llm, **{"checkpointer": InMemorySaver(), **options})

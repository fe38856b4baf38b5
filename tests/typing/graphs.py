"""LangGraph with agentmem, as a user's type checker sees it. Checked by mypy; never run."""

from __future__ import annotations

from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage

from langchain_agentmem import AgentMemoryMiddleware, AgentMemorySaver, AsyncAgentMemorySaver, ChatInfLLM


class Mood:
    """Something a graph's state may hold."""


def sync_agent() -> dict[str, Any]:
    """An agent whose threads and memory lie in one folder."""
    llm = ChatInfLLM(memory="off")
    with AgentMemorySaver.open(types=[Mood]) as saver:
        kept: AgentMemorySaver = saver
        agent = create_agent(llm, middleware=[AgentMemoryMiddleware("ada")], checkpointer=kept)
        result: dict[str, Any] = agent.invoke(
            {"messages": [HumanMessage("hello")]}, {"configurable": {"thread_id": "t"}}
        )
        saver.copy_thread("t", "u")
        saver.prune(["t"], strategy="keep_latest")
        saver.delete_for_runs(["r"])
    return result


async def async_agent(home: str) -> None:
    """The same, asynchronous, for many users."""
    middleware = AgentMemoryMiddleware(lambda request: str(request.runtime.context), memory="read")
    async with AsyncAgentMemorySaver.open(home) as saver:
        agent = create_agent(ChatInfLLM(), middleware=[middleware], checkpointer=saver)
        await agent.ainvoke({"messages": [HumanMessage("hello")]}, {"configurable": {"thread_id": "t"}})
        await saver.acopy_thread("t", "u")
        await saver.aprune(["t"])

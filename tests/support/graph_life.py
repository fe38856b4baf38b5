"""One turn of LangGraph agents whose threads and memories lie on disk, played in a fresh process.

Run as ``python -m support.graph_life HOME TEXT``: says TEXT to one agent for each of :data:`SAVERS`, and prints as
JSON what its thread and its memory hold then.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.sqlite import SqliteSaver

from agentmem.store import DiskHome
from langchain_agentmem import AgentMemoryMiddleware, AgentMemorySaver, AsyncAgentMemorySaver
from support.graphs import config, plain_agent
from support.langchain_agents import chat_model, held

SAVERS = ("agentmem", "agentmem-async", "sqlite")
"""The checkpointers; each keeps its threads, and its agent, in a folder of that name."""


def agent_of(home: Path, saver: Any) -> Any:
    """An agent without tools whose memory is named by its thread."""
    middleware = [AgentMemoryMiddleware()]
    return plain_agent(chat_model(home), system_prompt="Be brief.", middleware=middleware, checkpointer=saver)


def say(home: Path, saver: str, text: str) -> dict[str, Any]:
    """Say something in the thread of one saver; what the thread shows then, and what the memory holds."""
    folder = home / saver
    folder.mkdir(parents=True, exist_ok=True)
    given = {"messages": [HumanMessage(text)]}
    if saver == "agentmem-async":
        messages = asyncio.run(_say_async(folder, given))
    elif saver == "agentmem":
        with AgentMemorySaver.open(folder) as own:
            messages = agent_of(folder, own).invoke(given, config())["messages"]
    else:
        with SqliteSaver.from_conn_string(str(folder / "plain.db")) as plain:
            messages = agent_of(folder, plain).invoke(given, config())["messages"]
    return _record(folder, messages)


async def _say_async(folder: Path, given: Any) -> list[Any]:
    async with AsyncAgentMemorySaver.open(folder) as saver:
        result = await agent_of(folder, saver).ainvoke(given, config())
        return list(result["messages"])


def _record(folder: Path, messages: list[Any]) -> dict[str, Any]:
    answer = messages[-1]
    assert isinstance(answer, AIMessage)
    mark = answer.response_metadata["agentmem"]
    return {
        "thread": [[message.type, message.content] for message in messages],
        "held": [list(row) for row in held(chat_model(DiskHome(folder)), "t")],
        "usage": answer.usage_metadata,
        **{key: mark[key] for key in ("plan", "note", "state_id", "parent")},
    }


def main() -> None:
    """Play the turn that the command line names."""
    home, text = Path(sys.argv[1]), sys.argv[2]
    print(json.dumps({saver: say(home, saver, text) for saver in SAVERS}))


if __name__ == "__main__":
    main()

"""Callbacks under LangGraph: agent loops, approvals, hand-overs, closed streams, threads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware, SummarizationMiddleware
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolCall
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from agentmem import AgentMemory, InMemoryHome
from langchain_agentmem.callbacks import AgentMemoryCallback, AsyncAgentMemoryCallback
from support.tiny_language_model import SMALL, language_model

CALL = AIMessage("", tool_calls=[ToolCall(name="look", args={"at": "sky"}, id="call00001", type="tool_call")])
CALLED = '<tool_call>\n{"name": "look", "arguments": {"at": "sky"}}\n</tool_call>'


class Other(GenericFakeChatModel):
    """Another model, which takes tools and says things in turn."""

    def bind_tools(self, *_: Any, **__: Any) -> Any:
        return self


@tool
def look(at: str) -> str:
    """Look at something."""
    return f"The {at} is blue."


@pytest.fixture
def memory() -> Iterator[AgentMemory]:
    """An empty agent on tiny weights."""
    with AgentMemory.resume("ada", model=language_model(), home=InMemoryHome(), config=SMALL) as memory:
        yield memory


def agent(*answers: str | AIMessage, **options: Any) -> Any:
    """A LangChain agent whose model says these things."""
    return create_agent(Other(messages=iter(answers)), tools=[look], **options)


def told(memory: AgentMemory) -> list[list[tuple[str, str]]]:
    """(role, text) of every turn of the memory."""
    return [[(message["role"], message["content"]) for message in turn.messages] for turn in memory.history()]


def on(callback: Any, thread: str = "t1") -> Any:
    """The config of a thread's call."""
    return {"configurable": {"thread_id": thread}, "callbacks": [callback]}


def test_an_agents_loop_is_one_turn(memory: AgentMemory) -> None:
    """Question, call, result and answer are one turn, although the second model call sends all of it again."""
    callback = AgentMemoryCallback(memory)
    graph = agent(CALL, "It is blue.", "Bye.", checkpointer=InMemorySaver(), system_prompt="Be brief.")

    graph.invoke({"messages": "Look!"}, on(callback))
    graph.invoke({"messages": "Thanks."}, on(callback))

    assert told(memory) == [
        [
            ("system", "Be brief."),
            ("user", "Look!"),
            ("assistant", CALLED),
            ("tool", "The sky is blue."),
            ("assistant", "It is blue."),
        ],
        [("user", "Thanks."), ("assistant", "Bye.")],
    ]
    assert {message["metadata"]["thread"] for turn in memory.history() for message in turn.messages[1:]} == {
        "t1"
    }
    assert callback.errors == []
    assert callback._recorder._places == {}


async def test_an_async_agents_loop_is_one_turn(memory: AgentMemory) -> None:
    """The async twin keeps the same."""
    callback = AsyncAgentMemoryCallback(memory)

    await agent(CALL, "It is blue.").ainvoke({"messages": "Look!"}, on(callback))

    assert [role for role, _ in told(memory)[0]] == ["user", "assistant", "tool", "assistant"]
    assert callback.errors == []


def test_an_approval_in_between(memory: AgentMemory) -> None:
    """A loop that stops to ask a human is told in two turns, each message once."""
    callback = AgentMemoryCallback(memory)
    ask = HumanInTheLoopMiddleware(interrupt_on={"look": True})
    graph = agent(CALL, "It is blue.", checkpointer=InMemorySaver(), middleware=[ask])

    graph.invoke({"messages": "Look!"}, on(callback))
    graph.invoke(Command(resume={"decisions": [{"type": "approve"}]}), on(callback))

    assert told(memory) == [
        [("user", "Look!"), ("assistant", CALLED)],
        [("tool", "The sky is blue."), ("assistant", "It is blue.")],
    ]


def test_a_hand_over_to_the_parent_graph_is_no_failure(memory: AgentMemory) -> None:
    """A subgraph that ends by a command to its parent, an exception inside LangGraph, keeps what it said."""
    callback = AgentMemoryCallback(memory)
    model = Other(messages=iter(["From below.", "From above."]))

    def below(state: MessagesState) -> Command[Any]:
        answer = model.invoke(state["messages"])
        return Command(goto="above", graph=Command.PARENT, update={"messages": [*state["messages"], answer]})

    def above(state: MessagesState) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    inner = StateGraph(MessagesState).add_node("below", below).add_edge(START, "below").compile()
    outer = (
        StateGraph(MessagesState).add_node("inner", inner, destinations=("above",)).add_node("above", above)
    )
    outer.add_edge(START, "inner").compile().invoke(
        {"messages": [HumanMessage("Hi.")]}, {"callbacks": [callback]}
    )

    assert told(memory) == [[("user", "Hi."), ("assistant", "From below."), ("assistant", "From above.")]]


@pytest.mark.parametrize("mode", ["messages", "updates"])
def test_a_graphs_stream_closed_early_leaves_no_run_behind(memory: AgentMemory, mode: str) -> None:
    """Closed at the first piece, sync or async, nothing half said is kept, and the recorder is empty."""
    sync, twin = AgentMemoryCallback(memory), AsyncAgentMemoryCallback(memory)
    stream = agent("Hello there.").stream({"messages": "Hi."}, on(sync), stream_mode=mode)
    next(stream)
    stream.close()

    async def closed() -> None:
        stream = agent("Hello there.").astream({"messages": "Hi."}, on(twin), stream_mode=mode)
        await anext(stream)
        await stream.aclose()

    asyncio.run(closed())

    assert told(memory) == []
    assert sync._recorder._places == twin._recorder._places == {}
    assert sync.errors == twin.errors == []


def test_summaries_are_not_told(memory: AgentMemory) -> None:
    """LangChain's summariser asks a model for itself and puts a summary in the list: neither is anybody's words."""
    callback = AgentMemoryCallback(memory)
    shorten = SummarizationMiddleware(
        Other(messages=iter(["A summary.", "Another summary."])),
        trigger=("messages", 3),
        keep=("messages", 1),
    )
    graph = agent("One.", "Two.", "Three.", checkpointer=InMemorySaver(), middleware=[shorten])

    for text in ("a", "b", "c"):
        graph.invoke({"messages": text}, on(callback))

    assert told(memory) == [
        [("user", "a"), ("assistant", "One.")],
        [("user", "b"), ("assistant", "Two.")],
        [("user", "c"), ("assistant", "Three.")],
    ]


def test_threads_of_one_agent_stay_apart(memory: AgentMemory) -> None:
    """Two threads that say the same are both told, each message once."""
    callback = AgentMemoryCallback(memory)
    graph = agent("One.", "Uno.", "Two.", "Due.", checkpointer=InMemorySaver())

    for thread in ("t1", "t2", "t1", "t2"):
        graph.invoke({"messages": "Go."}, on(callback, thread))

    assert [turn[1][1] for turn in told(memory)] == ["One.", "Uno.", "Two.", "Due."]
    assert all(turn[0] == ("user", "Go.") and len(turn) == 2 for turn in told(memory))

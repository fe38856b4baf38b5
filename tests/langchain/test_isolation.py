"""Whose memory a call goes to: every path LangChain has, and never another agent's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph

from agentmem import AgentMemory, InputError
from langchain_agentmem import ChatInfLLM
from support.langchain_agents import chat_model, held, said

Path = Callable[[ChatInfLLM, str, dict[str, Any]], Any]


@tool
def look(place: str) -> str:
    """Look somewhere."""
    return f"nothing in {place}"


def chain(llm: Any) -> Any:
    """What most programs write."""
    return ChatPromptTemplate.from_messages([("user", "{text}")]) | llm | StrOutputParser()


def node_graph(llm: ChatInfLLM) -> Any:
    """A node that does not hand its config on."""

    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [llm.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    graph.add_edge("answer", END)
    return graph.compile()


def say(text: str) -> dict[str, Any]:
    """A graph's input."""
    return {"messages": [HumanMessage(text)]}


async def gathered(pieces: Any) -> list[Any]:
    """All of an async iterator."""
    return [piece async for piece in pieces]


async def events_v3(llm: Any, text: str, config: Any) -> None:
    """The third form of events, read to its end."""
    stream = await llm.astream_events(text, config, version="v3")
    await stream.output


PATHS: dict[str, Path] = {
    "invoke": lambda m, t, c: m.invoke(t, c),
    "stream": lambda m, t, c: list(m.stream(t, c)),
    "batch": lambda m, t, c: m.batch([t], [c]),
    "batch_as_completed": lambda m, t, c: list(m.batch_as_completed([t], [c])),
    "stream_events v3": lambda m, t, c: m.stream_events(t, c, version="v3").output,
    "ainvoke": lambda m, t, c: asyncio.run(m.ainvoke(t, c)),
    "astream": lambda m, t, c: asyncio.run(gathered(m.astream(t, c))),
    "abatch": lambda m, t, c: asyncio.run(m.abatch([t], [c])),
    "astream_events v2": lambda m, t, c: asyncio.run(gathered(m.astream_events(t, c, version="v2"))),
    "astream_events v3": lambda m, t, c: asyncio.run(events_v3(m, t, c)),
    "chain invoke": lambda m, t, c: chain(m).invoke({"text": t}, c),
    "chain stream": lambda m, t, c: list(chain(m).stream({"text": t}, c)),
    "chain batch": lambda m, t, c: chain(m).batch([{"text": t}], [c]),
    "chain abatch": lambda m, t, c: asyncio.run(chain(m).abatch([{"text": t}], [c])),
    "chain astream": lambda m, t, c: asyncio.run(gathered(chain(m).astream({"text": t}, c))),
    "chain astream_events v2": lambda m, t, c: asyncio.run(
        gathered(chain(m).astream_events({"text": t}, c, version="v2"))
    ),
    "bind_tools": lambda m, t, c: m.bind_tools([look]).invoke(t, c),
    "bind_tools v3": lambda m, t, c: m.bind_tools([look]).stream_events(t, c, version="v3").output,
    "with_retry": lambda m, t, c: m.with_retry().invoke(t, c),
    "with_fallbacks": lambda m, t, c: m.with_fallbacks([chat_model()]).invoke(t, c),
    "with_config": lambda m, t, c: m.with_config(c).invoke(t),
    "parallel": lambda m, t, c: RunnableParallel(one=m).invoke(t, c),
    "lambda": lambda m, t, c: RunnableLambda(lambda text: m.invoke(text)).invoke(t, c),
    "node without config": lambda m, t, c: node_graph(m).invoke(say(t), c),
    "node, async": lambda m, t, c: asyncio.run(node_graph(m).ainvoke(say(t), c)),
    "create_agent": lambda m, t, c: create_agent(m, []).invoke(say(t), c),
    "create_agent stream": lambda m, t, c: list(
        create_agent(m, []).stream(say(t), c, stream_mode="messages")
    ),
    "create_agent ainvoke": lambda m, t, c: asyncio.run(create_agent(m, []).ainvoke(say(t), c)),
}


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
@pytest.mark.parametrize("key", ["agent_id", "thread_id"])
@pytest.mark.parametrize("path", PATHS)
def test_the_config_names_the_agent(path: str, key: str) -> None:
    """On every path what is said as A is held by A alone, and what is said as B by B alone."""
    llm = chat_model()

    PATHS[path](llm, "I am ada.", {"configurable": {key: "A"}})
    PATHS[path](llm, "I am bob.", {"configurable": {key: "B"}})

    assert (said(llm, "A"), said(llm, "B")) == (["I am ada."], ["I am bob."])
    assert {info.agent_id for info in AgentMemory.list(llm.home)} == {"A", "B"}


def test_a_batch_may_serve_many_agents() -> None:
    """Each item of a batch goes to the agent that its own config names."""
    llm = chat_model()
    names = [f"user-{n}" for n in range(6)]

    llm.batch([f"I am {n}." for n in names], [{"configurable": {"agent_id": n}} for n in names])

    assert [said(llm, n) for n in names] == [[f"I am {n}."] for n in names]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda m, c: m.bind(agent_id="bound").invoke("Hi", c), "bound"),
        (lambda m, c: m.invoke("Hi", c, agent_id="given"), "given"),
        (lambda m, c: m.invoke("Hi", c), "configured"),
        (lambda m, _: m.invoke("Hi", {"configurable": {"thread_id": "thread"}}), "built"),
        (lambda m, _: m.invoke("Hi"), "built"),
    ],
)
def test_who_decides(call: Callable[..., Any], expected: str) -> None:
    """The keyword comes before the config's agent, that before the constructor, that before the thread."""
    llm = chat_model(agent_id="built")

    call(llm, {"configurable": {"agent_id": "configured", "thread_id": "thread"}})

    assert {info.agent_id for info in AgentMemory.list(llm.home)} == {expected}


def test_without_an_agent_nothing_is_kept() -> None:
    """No name anywhere: the call stands for itself, and no agent comes to be."""
    llm = chat_model()

    answer = llm.invoke("Hi")

    assert answer.response_metadata["agentmem"]["state_id"] is None
    assert AgentMemory.list(llm.home) == []


def test_a_field_may_be_made_configurable() -> None:
    """LangChain's own way of configuring a constructor's option works too."""
    llm = chat_model(agent_id="built")
    runnable = llm.configurable_fields(agent_id=ConfigurableField(id="who"))

    runnable.invoke("Hi", {"configurable": {"who": "chosen"}})

    assert said(llm, "chosen") == ["Hi"]


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_refused(name: str) -> None:
    """A blank agent in the config is a mistake, not a wish for none."""
    with pytest.raises(InputError, match="agent_id"):
        chat_model().invoke("Hi", {"configurable": {"agent_id": name}})


def test_two_chat_models_on_one_agent_share_its_memory() -> None:
    """Different options, one memory: nobody locks anybody out."""
    one = chat_model(agent_id="ada")
    two = chat_model(one.home, agent_id="ada", temperature=0.5, seed=1)

    one.invoke("First.")
    two.invoke("Second.")
    one.invoke("Third.")

    assert said(one, "ada") == ["First.", "Second.", "Third."]


def test_memory_read_answers_from_the_memory_and_leaves_it() -> None:
    """memory="read" stands on the past, and adds nothing to it."""
    llm = chat_model(agent_id="ada")
    llm.invoke("My dog is called Biscuit.")
    before = held(llm, "ada")

    answer = llm.bind(memory="read").invoke("What is it called?")

    assert held(llm, "ada") == before
    assert answer.usage_metadata["input_token_details"]["cache_read"] > 0


def test_side_calls_leave_no_trace() -> None:
    """ephemeral() neither reads nor writes the agent's memory."""
    llm = chat_model(agent_id="ada")
    llm.invoke("Hi")
    before = held(llm, "ada")

    answer = llm.ephemeral().invoke("Summarise: ...")

    assert held(llm, "ada") == before
    assert answer.usage_metadata["input_token_details"]["cache_read"] == 0


@pytest.mark.parametrize("mark", ["lc_source", "lc_internal_call"])
def test_langchains_own_side_calls_leave_no_trace(mark: str) -> None:
    """A call that LangChain's middleware makes for itself is never a turn of the user's thread."""
    llm = chat_model()

    llm.invoke("Summarise.", {"configurable": {"thread_id": "A"}, "metadata": {mark: "summarization"}})

    assert AgentMemory.list(llm.home) == []

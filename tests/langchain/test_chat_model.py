"""ChatInfLLM by itself: what it returns, what it refuses, how a turn ends early."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from pydantic import ValidationError

from agentmem import AgentBusyError, AgentMemory, FingerprintMismatchError, InputError, TurnTimeoutError
from langchain_agentmem import ChatInfLLM
from support.langchain_agents import chat_model, held, said
from support.tiny_language_model import language_model

PICTURE = [{"type": "image", "url": "https://example.org/a.png"}]


def mark(answer: AIMessage) -> dict[str, Any]:
    """What an answer says of the memory it came from."""
    stamp: dict[str, Any] = answer.response_metadata["agentmem"]
    return stamp


def test_an_answer_says_where_it_came_from() -> None:
    """Model, reason, agent, states and receipt are in the metadata; the counts say what was held already."""
    llm = chat_model(agent_id="ada")

    first = llm.invoke("My dog is called Biscuit.")
    second = llm.invoke("What is it called?")

    assert first.response_metadata["model_name"] == language_model().name
    assert first.response_metadata["model_provider"] == "agentmem"
    assert first.response_metadata["finish_reason"] == "length"
    assert (mark(first)["agent_id"], mark(first)["parent"]) == ("ada", None)
    assert mark(second)["parent"] == mark(first)["state_id"]
    assert mark(second)["receipt"]["tokens_reread"] == 0
    usage = second.usage_metadata
    assert usage is not None
    details = usage["input_token_details"]
    assert details["cache_read"] > 0
    assert usage["input_tokens"] == details["cache_read"] + details["cache_creation"]
    assert details["cache_read"] >= first.usage_metadata["input_tokens"]


@pytest.mark.parametrize("output_version", [None, "v0", "v1"])
def test_a_stream_adds_up_to_the_answer(output_version: str | None) -> None:
    """invoke, stream, ainvoke and astream give the same message and leave the same memory."""

    async def astreamed(llm: ChatInfLLM) -> AIMessageChunk:
        chunks = [chunk async for chunk in llm.astream("Tell me.")]
        return sum(chunks[1:], chunks[0])

    answers, memories = [], []
    for call in (
        lambda m: m.invoke("Tell me."),
        lambda m: (chunks := list(m.stream("Tell me.")), sum(chunks[1:], chunks[0]))[1],
        lambda m: asyncio.run(m.ainvoke("Tell me.")),
        lambda m: asyncio.run(astreamed(m)),
    ):
        llm = chat_model(agent_id="ada", max_tokens=12, output_version=output_version)
        answers.append(call(llm))
        memories.append(held(llm, "ada"))

    assert len({answer.text for answer in answers}) == 1
    assert answers[0].text
    assert all(answer.usage_metadata == answers[0].usage_metadata for answer in answers)
    assert all(answer.content_blocks[0]["type"] == "text" for answer in answers)
    assert all(memory == memories[0] for memory in memories)


def test_options_of_a_call_come_before_those_of_the_model() -> None:
    """max_tokens, stop, temperature and seed can be given for one call."""
    llm = chat_model(max_tokens=4)

    assert llm.invoke("Hi", max_tokens=2).usage_metadata["output_tokens"] == 2
    whole = llm.invoke("Hi", max_tokens=12).text
    cut = llm.invoke("Hi", max_tokens=12, stop=[whole[3:5]])
    assert whole.startswith(cut.text)
    assert len(cut.text) < len(whole)
    drawn = [llm.invoke("Hi", temperature=2.0, seed=seed, max_tokens=12).text for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_building_one_loads_nothing() -> None:
    """A model that is not there is missed at the first call, not at construction."""
    llm = ChatInfLLM(model="no-such-model-anywhere")

    assert llm.profile is not None
    assert llm.profile["image_inputs"] is False


def test_unknown_options_are_refused() -> None:
    """A misspelt option is an error, at construction and in a call."""
    with pytest.raises(ValidationError, match="agnet_id"):
        ChatInfLLM(agnet_id="ada")
    with pytest.raises(InputError, match="tempurature"):
        chat_model().invoke("Hi", tempurature=1)


@pytest.mark.parametrize(
    ("messages", "options", "words"),
    [
        ([], {}, "empty"),
        ([SystemMessage("Be kind.")], {}, "HumanMessage"),
        ([HumanMessage("")], {}, "empty"),
        ([ToolMessage("4", tool_call_id="a")], {}, "call"),
        ([HumanMessage("Hi"), AIMessage("Yes?"), ToolMessage("4", tool_call_id="a")], {}, "call"),
        ([HumanMessage([{"type": "hologram"}])], {}, "hologram"),
        ([HumanMessage(PICTURE)], {}, "image"),
        ([HumanMessage("Hi")], {"n": 2}, "n=2"),
        ([HumanMessage("Hi")], {"response_format": {"type": "poem"}}, "poem"),
        ([HumanMessage("Hi")], {"memory": "maybe"}, "memory"),
        ([HumanMessage("Hi"), AIMessage("Hello")], {}, "assistant|answer"),
    ],
)
@pytest.mark.parametrize("agent_id", ["ada", None])
def test_bad_input_is_refused_and_nothing_is_stored(
    messages: list[Any], options: dict[str, Any], words: str, agent_id: str | None
) -> None:
    """What no turn can be made of is a typed error with the remedy, and the memory is as it was."""
    llm = chat_model(agent_id=agent_id)
    llm.invoke("Hello")
    before = held(llm, "ada")

    with pytest.raises(InputError, match=words):
        llm.invoke(messages, **options)

    assert held(llm, "ada") == before


def test_a_stream_closed_early_leaves_no_trace() -> None:
    """The turn is dropped, and the agent is free at once."""
    llm = chat_model(agent_id="ada", max_tokens=50)
    llm.invoke("First.", max_tokens=4)

    stream = llm.stream("Second.")
    next(iter(stream))
    stream.close()

    assert said(llm, "ada") == ["First."]
    llm.invoke("Third.", max_tokens=4)
    assert said(llm, "ada") == ["First.", "Third."]


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_cancelled_call_stops_decoding_and_leaves_no_trace(streamed: bool) -> None:
    """After a cancel the worker has stopped, the turn is gone, and the agent is free."""
    llm = chat_model(agent_id="ada", max_tokens=400)

    async def call() -> None:
        if streamed:
            async for _ in llm.astream("Second."):
                pass
        else:
            await llm.ainvoke("Second.")

    await llm.ainvoke("First.", max_tokens=4)
    task = asyncio.create_task(call())
    await asyncio.sleep(0.15)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not [t for t in threading.enumerate() if t.name.startswith("agentmem-call") and t.is_alive()]
    assert said(llm, "ada") == ["First."]
    await llm.ainvoke("Third.", max_tokens=4)
    assert said(llm, "ada") == ["First.", "Third."]


def test_a_turn_that_takes_too_long_is_dropped() -> None:
    """timeout is a typed error, and nothing of the turn stays."""
    llm = chat_model(agent_id="ada", max_tokens=400, timeout=1e-6)

    with pytest.raises(TurnTimeoutError, match="timeout"):
        llm.invoke("Hi")

    assert said(llm, "ada") == []


def test_langchains_cache_is_off() -> None:
    """With a global cache set, saying the same twice is two turns."""
    set_llm_cache(InMemoryCache())
    try:
        llm = chat_model(agent_id="ada")
        llm.invoke("hi")
        llm.invoke("hi")
    finally:
        set_llm_cache(None)

    assert said(llm, "ada") == ["hi", "hi"]


def test_another_model_is_for_calls_without_a_memory() -> None:
    """A call may name another model; with an agent the fingerprint refuses it, and nothing is stored."""
    llm = chat_model()
    other = language_model(seed=1)

    assert llm.invoke("Hi", model=other).text != llm.invoke("Hi").text
    llm.invoke("Hi", agent_id="ada")
    with pytest.raises(FingerprintMismatchError):
        llm.invoke("Hi again", agent_id="ada", model=other)
    assert said(llm, "ada") == ["Hi"]
    llm.invoke("Hi again", agent_id="ada")
    assert said(llm, "ada") == ["Hi", "Hi again"]


def test_between_calls_others_may_write() -> None:
    """The agent is not held between calls; what others wrote is there in the next one."""
    llm = chat_model(agent_id="ada")
    llm.invoke("First.")
    with AgentMemory.resume("ada", home=llm.home, model=llm.model) as memory:
        memory.chat("Second.", max_new_tokens=4)

    llm.invoke("Third.")

    assert said(llm, "ada") == ["First.", "Second.", "Third."]


def test_a_deleted_agent_begins_anew() -> None:
    """An agent that was removed between two calls is a new one in the second."""
    llm = chat_model(agent_id="ada")
    llm.invoke("First.")
    AgentMemory.delete("ada", llm.home)

    llm.invoke("Second.")

    assert said(llm, "ada") == ["Second."]


def test_six_threads_on_one_agent() -> None:
    """Calls on one agent queue: each turn is whole, and each is held once."""
    llm = chat_model(agent_id="ada")
    texts = [f"I am thread {n}." for n in range(6)]
    threads = [threading.Thread(target=llm.invoke, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    rows = held(llm, "ada")
    assert sorted(said(llm, "ada")) == texts
    assert [role for role, _ in rows] == ["user", "assistant"] * 6


def test_a_call_within_ones_own_stream_is_told() -> None:
    """Calling an agent in the middle of one's own stream on it raises instead of hanging."""
    llm = chat_model(agent_id="ada", max_tokens=50)
    stream = llm.stream("First.")
    next(iter(stream))

    with pytest.raises(AgentBusyError, match="stream"):
        llm.invoke("Second.")

    stream.close()


def test_tokens_are_counted_by_the_models_own_tokenizer() -> None:
    """get_num_tokens needs no other tokenizer, and no network."""
    llm = chat_model()

    assert llm.get_num_tokens("Hello there") == len(
        language_model().tokenizer.encode("Hello there", add_special_tokens=False)
    )
    assert llm.get_num_tokens_from_messages([HumanMessage("Hello there")]) > llm.get_num_tokens("Hello there")

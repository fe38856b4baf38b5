"""Callbacks and tools beside ChatInfLLM on the same agent: one history, nothing twice, the loop goes on."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from agentmem import AgentMemory
from langchain_agentmem import AgentMemoryCallback, AgentMemoryRetriever, memory_tools, running
from langchain_agentmem.reply_parser import ParsedCall
from langchain_agentmem.tool_prompt import render_calls
from langchain_agentmem.tool_style import tool_style
from langchain_agentmem.tools import NOTE
from support.langchain_agents import chat_model, held
from support.scripted import Scripted
from support.tiny_language_model import SMALL, language_model


def model(answer: str) -> GenericFakeChatModel:
    """Another model, which says one thing."""
    return GenericFakeChatModel(messages=iter([answer]))


def turns_of(memory: AgentMemory) -> list[list[tuple[str, str]]]:
    """(role, text) of every turn."""
    return [[(message["role"], message["content"]) for message in turn.messages] for turn in memory.history()]


def config(*callbacks: AgentMemoryCallback) -> Any:
    """A call's config with callbacks in it."""
    return {"callbacks": list(callbacks)}


def test_answers_of_the_same_memory_are_left_alone() -> None:
    """ChatInfLLM on the same agent has its turn already; on another agent it is recorded like any model."""
    llm = chat_model(agent_id="ada")
    options = {"home": llm.home, "model": llm.model, "config": SMALL}
    same = AgentMemoryCallback(agent_id="ada", **options)
    other = AgentMemoryCallback(agent_id="eve", **options)

    answer = llm.invoke("Hi.", {"callbacks": [same, other]})

    for agent in ("ada", "eve"):
        with AgentMemory.resume(agent, **options, wait=10) as memory:
            turns = turns_of(memory)
            assert len(turns) == 1
            assert turns[0] == [("user", "Hi."), ("assistant", answer.content)]
    assert same.errors == other.errors == []


def test_a_fallback_to_another_model_keeps_one_history() -> None:
    """What ChatInfLLM said and what its stand-in said are held once, although each call sends everything."""
    llm = chat_model(agent_id="ada")
    options = {"home": llm.home, "model": llm.model, "config": SMALL}
    callback = AgentMemoryCallback(agent_id="ada", **options)
    history: list[BaseMessage] = [HumanMessage("a", id="1")]

    history.append(llm.invoke(history, config(callback)))
    history.append(HumanMessage("b", id="2"))
    history.append(model("Stand-in.").invoke(history, config(callback)))
    history.append(HumanMessage("c", id="3"))
    history.append(llm.invoke(history, config(callback)))

    with AgentMemory.resume("ada", **options, wait=10) as memory:
        assert [row for turn in turns_of(memory) for row in turn] == [
            ("user", "a"),
            ("assistant", history[1].content),
            ("user", "b"),
            ("assistant", "Stand-in."),
            ("user", "c"),
            ("assistant", history[5].content),
        ]
    assert callback.errors == []


@pytest.mark.parametrize("template", ["chatml", "qwen2.5", "mistral-v3"])
def test_the_loop_goes_on_behind_a_note(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`remember` runs between a call and its result: call, note, result and answer are held once, in that order."""
    tiny = language_model(template=template)
    llm = chat_model(agent_id="ada", model=tiny, max_tokens=80)
    tools = memory_tools("ada", home=llm.home, model=tiny, config=SMALL, wait=5)
    wanted = ParsedCall("remember", {"text": "The user likes tea."})
    written = render_calls([wanted], tool_style(tiny).syntax)
    history: list[BaseMessage] = [HumanMessage("Remember that I like tea.", id="1")]

    with monkeypatch.context() as scripted:
        scripted.setattr(running, "processors", lambda *_: [Scripted(tiny.tokenizer, written)])
        called = llm.bind_tools(tools).invoke(history)
    (call,) = called.tool_calls
    note = tools[1].invoke(call)
    history += [called, note]
    history.append(llm.bind(max_tokens=4).invoke(history))
    llm.bind(max_tokens=4).invoke([*history, HumanMessage("Thanks.", id="2")])

    assert isinstance(note, ToolMessage)
    assert (note.status, note.content) == ("success", "Remembered (turn 2).")
    rows = held(llm, "ada")
    contents = [text for _, text in rows]
    assert contents[:2] == ["Remember that I like tea.", written]
    assert contents[2] == NOTE + "The user likes tea."
    assert "Remembered (turn 2)." in contents[3]
    assert [role for role, _ in rows].count("assistant") == 3
    assert contents.count("Thanks.") == 1
    assert len(rows) == 7


def test_a_turn_is_found_by_the_retriever_and_forgotten_by_the_tool() -> None:
    """What the chat model was told is found without a model, and gone when the tool has forgotten it."""
    llm = chat_model(agent_id="ada")
    for text in (
        "The first words fill the sinks of it.",
        "My dog is called Biscuit.",
        "The weather is fine.",
    ):
        llm.invoke(text)
    retriever = AgentMemoryRetriever(agent_id="ada", home=llm.home, roles=("user",))
    forget = memory_tools("ada", home=llm.home, model=llm.model, config=SMALL, wait=5)[2]
    assert retriever.invoke("What is my dog called?")[0].page_content == "My dog is called Biscuit."

    assert "Forgotten" in forget.invoke({"match": "Biscuit", "confirm": True})

    assert retriever.invoke("dog Biscuit") == []
    assert isinstance(llm.invoke("Still there?"), AIMessage)

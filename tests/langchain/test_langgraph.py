"""Agents of LangGraph whose memory is ours: threads that go on, go back, are edited, trimmed and summarised."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage
from langgraph.checkpoint.memory import InMemorySaver

from agentmem import AgentMemory, HistoryChangedError
from langchain_agentmem import AgentMemoryMiddleware, AgentMemorySaver, AsyncAgentMemorySaver
from support.graph_life import SAVERS, say
from support.graphs import config, human, mark, new_tokens, plain_agent, shown, talk
from support.langchain_agents import chat_model, held

DOG, CAT, TOM = "My dog is called Biscuit.", "I have a cat, too.", "The cat is called Tom."


# ---------------------------------------------------------------------------------------- going on


def test_a_thread_goes_on() -> None:
    """LangGraph sends the whole list each time; each turn reads its new message alone, and memory equals thread."""
    llm = chat_model()
    agent = plain_agent(llm, system_prompt="Be brief.")
    answers = talk(agent, DOG, DOG, DOG, DOG)
    thread = agent.get_state(config()).values["messages"]

    assert [mark(answer)["plan"] for answer in answers] == ["fresh", "extend", "extend", "extend"]
    assert [mark(answer)["note"] for answer in answers] == [""] * 4
    assert [mark(b)["parent"] for b in answers[1:]] == [mark(a)["state_id"] for a in answers[:-1]]
    assert new_tokens(answers[1]) == new_tokens(answers[2]) == new_tokens(answers[3])
    assert held(llm, "t") == shown(thread)


def test_a_thread_goes_on_in_another_process(tmp_path: Path) -> None:
    """Two processes, one turn each, three checkpointers: the second reads its new message alone and answers as one
    process would have."""
    first, second = (_in_process(tmp_path / "split", text) for text in (DOG, CAT))

    for saver in SAVERS:
        _, expected = (say(tmp_path / "alone", saver, text) for text in (DOG, CAT))
        assert second[saver]["parent"] == first[saver]["state_id"]
        assert second[saver]["plan"] == expected["plan"] == "extend"
        assert second[saver]["usage"] == expected["usage"]
        assert second[saver]["thread"] == expected["thread"]
        assert [text for _, text in second[saver]["held"]] == [text for _, text in expected["thread"]]


def _in_process(home: Path, text: str) -> dict[str, Any]:
    line = [sys.executable, "-m", "support.graph_life", str(home), text]
    played = subprocess.run(line, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert played.returncode == 0, played.stderr
    return dict(json.loads(played.stdout))


async def test_async_agents_do_the_same(tmp_path: Path) -> None:
    """ainvoke and invoke answer alike, and leave the same memory."""
    sync_llm, async_llm = chat_model(), chat_model()
    agent = plain_agent(sync_llm, middleware=[AgentMemoryMiddleware()])
    answers = talk(agent, DOG, CAT)
    async with AsyncAgentMemorySaver.open(tmp_path) as saver:
        twin = plain_agent(async_llm, middleware=[AgentMemoryMiddleware()], checkpointer=saver)
        results = [await twin.ainvoke(human(text), config()) for text in (DOG, CAT)]

    assert [r["messages"][-1].content for r in results] == [answer.content for answer in answers]
    assert held(async_llm, "t") == held(sync_llm, "t")


def test_streamed_messages_change_the_memory_alike() -> None:
    """stream_mode="messages" takes another way through LangChain; turns are stored once all the same."""
    llm = chat_model()
    agent = plain_agent(llm, middleware=[AgentMemoryMiddleware()])
    for text in (DOG, CAT):
        pieces = list(agent.stream(human(text), config(), stream_mode="messages"))
        assert len(pieces) > 1

    assert held(llm, "t") == shown(agent.get_state(config()).values["messages"])


def test_two_threads_may_share_an_agent() -> None:
    """Two threads of one agent: each goes on where the memory is, and neither takes a turn off the other."""
    llm = chat_model()
    agent = plain_agent(llm, middleware=[AgentMemoryMiddleware("ada")])
    for text in (DOG, CAT):
        talk(agent, f"left: {text}", thread="left")
        talk(agent, f"right: {text}", thread="right")

    said = [text for role, text in held(llm, "ada") if role == "user"]
    assert said == [f"left: {DOG}", f"right: {DOG}", f"left: {CAT}", f"right: {CAT}"]
    assert held(llm, "left") == held(llm, "right") == []


# ---------------------------------------------------------------------------------------- going back


@pytest.mark.parametrize("own_saver", [True, False], ids=["agentmem", "in-memory"])
def test_going_back_in_a_thread_goes_back_in_the_memory(own_saver: bool, tmp_path: Path) -> None:
    """Going on from an earlier checkpoint forks the memory there; the way not taken is still held."""
    llm = chat_model()
    with AgentMemorySaver.open(tmp_path) as on_disk:
        agent = plain_agent(llm, checkpointer=on_disk if own_saver else InMemorySaver())
        first, second = talk(agent, DOG, CAT)
        back = next(s for s in agent.get_state_history(config()) if s.values["messages"][-1:] == [first])
        result = agent.invoke(human(TOM), back.config)

    answer = result["messages"][-1]
    assert mark(answer)["plan"] == "fork"
    assert mark(answer)["parent"] == mark(first)["state_id"]
    assert held(llm, "t") == shown(result["messages"])
    with AgentMemory.resume("t", home=llm.home, model=llm.model) as memory:
        left = memory.history(at=mark(second)["state_id"])
    assert [turn.messages[0]["content"] for turn in left] == [DOG, CAT]


def test_a_replayed_step_is_stored_once() -> None:
    """Running a checkpoint again, as after a crash, answers the same question again instead of asking it twice."""
    llm = chat_model(temperature=0.9, seed=3)
    agent = plain_agent(llm)
    talk(agent, DOG, CAT)
    asked = next(s for s in agent.get_state_history(config()) if s.next == ("model",))
    result = agent.invoke(None, asked.config)

    assert asked.values["messages"][-1].content == CAT
    assert mark(result["messages"][-1])["plan"] == "regenerate"
    assert held(llm, "t") == shown(result["messages"])


def test_an_edited_question_takes_the_place_of_the_old_one() -> None:
    """update_state with the same message id and another text: the memory goes on from before that question."""
    llm = chat_model()
    agent = plain_agent(llm)
    first, _ = talk(agent, DOG, CAT)
    asked = next(s for s in agent.get_state_history(config()) if s.next == ("model",))
    edited = HumanMessage(TOM, id=asked.values["messages"][-1].id)
    at = agent.update_state(asked.config, {"messages": [edited]}, as_node="__start__")
    result = agent.invoke(None, at)

    answer = result["messages"][-1]
    assert [text for _, text in shown(result["messages"])][::2] == [DOG, TOM]
    assert mark(answer)["parent"] == mark(first)["state_id"]
    assert held(llm, "t") == shown(result["messages"])


# ------------------------------------------------------------------------------ removed and summarised


def test_removed_messages_stay_in_the_memory_unless_asked_otherwise() -> None:
    """RemoveMessage on the first turn: the memory keeps it and says so."""
    llm = chat_model()
    agent = plain_agent(llm)
    answers = talk(agent, DOG, CAT)
    answers += _after_removing(agent, 2)

    assert mark(answers[2])["plan"] == "extend"
    assert mark(answers[2])["note"]
    assert [text for _, text in held(llm, "t")][::2] == [DOG, CAT, TOM]


def test_removed_messages_leave_the_memory_with_rebuild() -> None:
    """on_missing="rebuild": after a RemoveMessage the memory's branch is the list that is left."""
    llm = chat_model(on_missing="rebuild")
    agent = plain_agent(llm)
    talk(agent, DOG, CAT)
    _after_removing(agent, 2)

    assert held(llm, "t") == shown(agent.get_state(config()).values["messages"])
    assert DOG not in [text for _, text in held(llm, "t")]


def test_removed_messages_are_an_error_if_wanted() -> None:
    """on_missing="error": the turn is refused, and nothing is stored."""
    llm = chat_model(on_missing="error")
    agent = plain_agent(llm)
    talk(agent, DOG, CAT)
    before = held(llm, "t")

    with pytest.raises(HistoryChangedError):
        _after_removing(agent, 2)
    assert held(llm, "t") == before


def _after_removing(agent: Any, count: int) -> list[AIMessage]:
    """Remove the thread's first messages, and say one thing more."""
    messages = agent.get_state(config()).values["messages"]
    agent.update_state(config(), {"messages": [RemoveMessage(message.id) for message in messages[:count]]})
    return talk(agent, TOM)


def test_a_summary_is_a_side_call() -> None:
    """SummarizationMiddleware asks the same model under the same thread: that call leaves no trace."""
    llm = chat_model()
    summary = SummarizationMiddleware(llm, trigger=("messages", 4), keep=("messages", 2))
    agent = plain_agent(llm, middleware=[summary, AgentMemoryMiddleware()])
    answers = talk(agent, DOG, CAT, TOM)
    texts = [text for _, text in held(llm, "t")]

    assert "summary" in agent.get_state(config()).values["messages"][0].content
    assert [text for text in texts if text in {DOG, CAT, TOM}] == [DOG, CAT, TOM]
    assert not any("Extraction" in text for text in texts)
    assert mark(answers[2])["parent"] == mark(answers[1])["state_id"]

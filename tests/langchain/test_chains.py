"""The model inside LangChain's own constructions: prompts, retries, fallbacks, parallel branches, batches."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import RunnableLambda, RunnableParallel

from agentmem import AgentMemory, InputError
from support.langchain_agents import chat_model, held, said


def test_a_prompt_with_only_the_question_remembers() -> None:
    """prompt | llm sends the new turn alone, and the system prompt is read once."""
    llm = chat_model(agent_id="ada")
    prompt = ChatPromptTemplate.from_messages([("system", "Be kind."), ("user", "{question}")])
    chain = prompt | llm | StrOutputParser()

    chain.invoke({"question": "First?"})
    chain.invoke({"question": "Second?"})

    assert said(llm, "ada") == ["First?", "Second?"]
    with AgentMemory.resume("ada", home=llm.home, model=llm.model) as memory:
        prompts = [m for turn in memory.history() for m in turn.messages if m["role"] == "system"]
    assert [m["content"] for m in prompts] == ["Be kind."]


def test_a_prompt_with_the_history_remembers_each_message_once() -> None:
    """A placeholder that brings the whole history adds nothing but the new turn."""
    llm = chat_model(agent_id="ada")
    prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("past"), ("user", "{question}")])
    past: list[Any] = []
    for question in ("First?", "Second?", "Third?"):
        answer = (prompt | llm).invoke({"past": past, "question": question})
        past += [HumanMessage(question), answer]

    assert said(llm, "ada") == ["First?", "Second?", "Third?"]


def test_few_shot_examples_in_a_prompt_are_read_once() -> None:
    """Examples that stand before every question become memory with the first question only."""
    llm = chat_model(agent_id="ada")
    prompt = ChatPromptTemplate.from_messages([("user", "2+2"), ("ai", "4"), ("user", "{question}")])

    first = (prompt | llm).invoke({"question": "3+3"})
    second = (prompt | llm).invoke({"question": "4+4"})

    assert first.response_metadata["agentmem"]["plan"] == "import"
    assert said(llm, "ada").count("2+2") == 1
    assert second.response_metadata["agentmem"]["plan"] in {"unrelated", "extend", "delta"}


def test_a_retry_stores_the_turn_once() -> None:
    """with_retry around a chain whose parser fails once: the message's id tells that it is the same turn."""
    llm = chat_model(agent_id="ada")
    failures = [True, False]

    def parse(answer: AIMessage) -> str:
        if failures.pop(0):
            raise ConnectionError("once")
        return answer.text

    chain = (llm | RunnableLambda(parse)).with_retry(
        retry_if_exception_type=(ConnectionError,), wait_exponential_jitter=False
    )

    chain.invoke([HumanMessage("Once.", id="m1")])

    assert said(llm, "ada") == ["Once."]


def test_a_message_delivered_again_later_is_answered_from_the_memory() -> None:
    """A second delivery after others have spoken gives the same answer, and leaves what was said since."""
    llm = chat_model(agent_id="ada")
    message = HumanMessage("Once.", id="m1")
    first = llm.invoke([message])
    llm.invoke([HumanMessage("Since.", id="m2")])

    again = llm.invoke([message])

    assert again.text == first.text
    assert again.response_metadata["agentmem"]["plan"] == "answered"
    assert again.response_metadata["agentmem"]["state_id"] == first.response_metadata["agentmem"]["state_id"]
    assert again.usage_metadata["output_tokens"] == 0
    assert said(llm, "ada") == ["Once.", "Since."]


def test_a_failed_call_falls_back_and_its_answer_is_remembered_later() -> None:
    """What the fallback said is read in with the next list; nothing of the failed call was kept."""
    llm = chat_model(agent_id="ada")
    broken = llm.bind(response_format={"type": "poem"})
    chain = broken.with_fallbacks([FakeListChatModel(responses=["From the fallback."])])
    question = HumanMessage("First?", id="m1")

    answer = chain.invoke([question])
    assert held(llm, "ada") == []
    llm.invoke([question, answer, HumanMessage("Second?", id="m2")])

    assert held(llm, "ada")[:3] == [
        ("user", "First?"),
        ("assistant", "From the fallback."),
        ("user", "Second?"),
    ]


def test_parallel_branches_of_a_conversation_fork() -> None:
    """Two branches from one list are two states; each can be gone on from, and neither holds the other."""
    llm = chat_model(agent_id="ada")
    past = [HumanMessage("First.")]
    past.append(llm.invoke(past))
    branches = RunnableParallel(
        one=RunnableLambda(lambda text: [*past, HumanMessage(f"One: {text}")]) | llm,
        two=RunnableLambda(lambda text: [*past, HumanMessage(f"Two: {text}")]) | llm,
    )

    answers = branches.invoke("go")

    stamps = {name: answer.response_metadata["agentmem"] for name, answer in answers.items()}
    assert stamps["one"]["parent"] == stamps["two"]["parent"]
    with AgentMemory.resume("ada", home=llm.home, model=llm.model) as memory:
        for name, text in (("one", "One: go"), ("two", "Two: go")):
            turns = memory.history(at=stamps[name]["state_id"])
            assert [turn.messages[0]["content"] for turn in turns] == ["First.", text]


def test_parallel_questions_are_turns_in_some_order() -> None:
    """Two new questions at once on one agent are both held, one after the other."""
    llm = chat_model(agent_id="ada")

    RunnableParallel(one=llm, two=llm).invoke("Hello.")

    assert said(llm, "ada") == ["Hello.", "Hello."]
    assert [role for role, _ in held(llm, "ada")] == ["user", "assistant"] * 2


def test_a_batch_on_one_agent_keeps_every_turn() -> None:
    """Items of a batch on one agent queue; a bad one fails alone."""
    llm = chat_model(agent_id="ada")

    results = llm.batch(["One.", [], "Three."], return_exceptions=True)

    assert isinstance(results[1], InputError)
    assert sorted(said(llm, "ada")) == ["One.", "Three."]


@pytest.mark.parametrize("count", [2, 5])
async def test_an_async_batch_on_one_agent_keeps_every_turn(count: int) -> None:
    """The same with coroutines, which must not wait for themselves."""
    llm = chat_model(agent_id="ada")

    await llm.abatch([f"Number {n}." for n in range(count)])

    assert sorted(said(llm, "ada")) == [f"Number {n}." for n in range(count)]

"""Two hundred calls at once, by every means LangChain has: no turn in the wrong agent, none lost, none twice."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda

from agentmem import AgentMemory, InMemoryHome
from langchain_agentmem import ChatInfLLM
from support.langchain_agents import chat_model
from support.tiny_language_model import SMALL

AGENTS = ("ada", "bob", "cyd", "dot")
CALLS = 200


def config(agent: str) -> dict[str, Any]:
    """What names the agent."""
    return {"configurable": {"agent_id": agent}}


def by_invoke(llm: ChatInfLLM, agent: str, message: HumanMessage) -> bool:
    """The plain way."""
    llm.invoke([message], config(agent))
    return True


def by_stream(llm: ChatInfLLM, agent: str, message: HumanMessage) -> bool:
    """Read to the end."""
    list(llm.stream([message], config(agent)))
    return True


def by_closed_stream(llm: ChatInfLLM, agent: str, message: HumanMessage) -> bool:
    """Closed after the first piece: no turn."""
    stream = llm.stream([message], config(agent), max_tokens=50)
    next(iter(stream))
    stream.close()
    return False


def by_batch(llm: ChatInfLLM, agent: str, message: HumanMessage) -> bool:
    """A batch of one, beside an ephemeral call."""
    llm.batch([[message], [HumanMessage("nobody")]], [config(agent), {}])
    return True


def by_retry(llm: ChatInfLLM, agent: str, message: HumanMessage) -> bool:
    """What follows the model fails once, after the turn was kept; the message's id tells the retry."""
    tries: list[AIMessage] = []

    def fails_once(answer: AIMessage) -> AIMessage:
        tries.append(answer)
        if len(tries) == 1:
            raise ConnectionError("try again")
        return answer

    chain = (llm | RunnableLambda(fails_once)).with_retry(
        retry_if_exception_type=(ConnectionError,), wait_exponential_jitter=False, stop_after_attempt=2
    )
    chain.invoke([message], config(agent))
    assert tries[0].text == tries[1].text
    return True


def by_async(llm: ChatInfLLM, agent: str, message: HumanMessage) -> bool:
    """In an event loop of its own."""
    asyncio.run(llm.ainvoke([message], config(agent)))
    return True


def by_cancelled(llm: ChatInfLLM, agent: str, message: HumanMessage) -> bool | None:
    """Cancelled while it waits or decodes: no turn. A reply that was short enough to end before is one.

    None when cancelled: a cancel may still come in the moment between the commit and the answer.
    """

    async def call() -> bool | None:
        task = asyncio.create_task(llm.ainvoke([message], config(agent), max_tokens=900))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task])
        return None if task.cancelled() else True

    return asyncio.run(call())


WAYS = (by_invoke, by_stream, by_closed_stream, by_batch, by_retry, by_async, by_cancelled)


def test_a_mixed_crowd_equals_a_sequential_oracle() -> None:
    """Each agent holds its own turns once, and its answers are those of the same turns made one by one."""
    llm = chat_model()
    chance = random.Random(3)
    jobs = [(chance.choice(WAYS), chance.choice(AGENTS), n) for n in range(CALLS)]

    def run(job: tuple[Any, str, int]) -> tuple[str, str, bool | None]:
        way, agent, number = job
        text = f"{agent} says {number}."
        return agent, text, way(llm, agent, HumanMessage(text, id=f"m{number}"))

    with ThreadPoolExecutor(8) as workers:
        outcomes = list(workers.map(run, jobs))

    expected: dict[str, set[str]] = defaultdict(set)
    cancelled = {text for _, text, kept in outcomes if kept is None}
    for agent, text, kept in outcomes:
        if kept:
            expected[agent].add(text)
    assert {info.agent_id for info in AgentMemory.list(llm.home)} <= set(AGENTS)
    for agent in AGENTS:
        turns = transcript(llm, agent)
        asked = [question for question, _ in turns]
        assert len(set(asked)) == len(asked)
        late = {text for text in cancelled & set(asked) if text.startswith(agent)}
        assert set(asked) == expected[agent] | late
        assert len(late) <= 2
        assert turns == oracle(llm, asked)


def transcript(llm: ChatInfLLM, agent: str) -> list[tuple[str, str]]:
    """(question, answer) of each turn an agent holds."""
    with AgentMemory.resume(agent, home=llm.home, model=llm.model) as memory:
        return [(turn.messages[0]["content"], turn.messages[-1]["content"]) for turn in memory.history()]


def oracle(llm: ChatInfLLM, asked: list[str]) -> list[tuple[str, str]]:
    """The same questions, one by one, without any adapter."""
    with AgentMemory.resume("oracle", home=InMemoryHome(), model=llm.model, config=SMALL) as memory:
        return [(text, memory.chat(text, max_new_tokens=4, min_new_tokens=1).text) for text in asked]

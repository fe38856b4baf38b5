"""The async twins: the same turns, on a loop that stays free; cancelling drops the turn."""

from __future__ import annotations

import asyncio
import gc
import threading
from pathlib import Path

import pytest
from torch import Tensor

from agentmem.agent import AgentMemory
from agentmem.engine.model import LanguageModel
from agentmem.errors import AgentBusyError, ClosedError, InputError
from agentmem.store import InMemoryHome
from support.agent_state import state_of
from support.tiny_language_model import SMALL, language_model

AT = "2026-01-02T03:04:05+00:00"
QUESTION = "What is my dog called?"


@pytest.fixture
def model() -> LanguageModel:
    """The shared tiny model."""
    return language_model()


@pytest.fixture
def memory(model: LanguageModel) -> AgentMemory:
    """A new agent."""
    return AgentMemory.resume("ada", model=model, home=InMemoryHome(), config=SMALL)


def test_the_twins_do_what_the_calls_do(model: LanguageModel, tmp_path: Path) -> None:
    """achat, astream, agenerate, aobserve: replies and K/V as from chat, stream, generate, observe."""
    calm = AgentMemory.resume("ada", model=model, home=InMemoryHome(), config=SMALL)
    texts = [calm.chat("Hello", max_new_tokens=6, at=AT).text]
    texts.append("".join(calm.stream(QUESTION, max_new_tokens=6, at=AT)))
    calm.observe("The quick brown fox.", source="fox", at=AT)
    texts.append(calm.generate([{"role": "user", "content": "And?"}], max_new_tokens=6, at=AT).text)

    async def live() -> list[str]:
        with AgentMemory.resume("ada", model=model, home=tmp_path, config=SMALL) as memory:
            found = [(await memory.achat("Hello", max_new_tokens=6, at=AT)).text]
            stream = memory.astream(QUESTION, max_new_tokens=6, at=AT)
            found.append("".join([piece async for piece in stream]))
            assert stream.reply.text == found[-1]
            assert [piece async for piece in stream] == []
            receipt = await memory.aobserve("The quick brown fox.", source="fox", at=AT)
            assert receipt.tokens_prefilled > 0
            reply = await memory.agenerate([{"role": "user", "content": "And?"}], max_new_tokens=6, at=AT)
            assert state_of(memory)["kv"] == state_of(calm)["kv"]
            return [*found, reply.text]

    assert asyncio.run(live()) == texts


def test_the_loop_stays_free(memory: AgentMemory) -> None:
    """While a reply is decoded other tasks run."""

    async def live() -> int:
        go_on = threading.Event()

        def wait_for_the_loop(_: Tensor, scores: Tensor) -> Tensor:
            assert go_on.wait(30), "the loop was held up by the reply"
            return scores

        task = asyncio.create_task(
            memory.achat(QUESTION, max_new_tokens=5, logits_processor=[wait_for_the_loop])
        )
        await asyncio.sleep(0.01)
        go_on.set()
        return (await task).usage.output_tokens

    assert asyncio.run(live()) == 5


def test_calls_of_many_tasks_queue(memory: AgentMemory) -> None:
    """Six tasks on one memory: six whole turns."""

    async def live() -> None:
        await asyncio.gather(*(memory.achat(f"I am {n}.", max_new_tokens=4) for n in range(6)))

    asyncio.run(live())
    assert sorted(turn.messages[0]["content"] for turn in memory.history()) == [
        f"I am {n}." for n in range(6)
    ]


def test_agents_of_one_model_answer_at_once(model: LanguageModel) -> None:
    """Four memories in four tasks: each reply is what it is alone."""
    alone = [_chat(model, n).chat(QUESTION, max_new_tokens=8, at=AT).token_ids for n in range(4)]

    async def live() -> list[object]:
        crowd = [_chat(model, n) for n in range(4)]
        replies = await asyncio.gather(*(m.achat(QUESTION, max_new_tokens=8, at=AT) for m in crowd))
        return [reply.token_ids for reply in replies]

    assert asyncio.run(live()) == alone


def _chat(model: LanguageModel, number: int) -> AgentMemory:
    memory = AgentMemory.resume("ada", model=model, home=InMemoryHome(), config=SMALL)
    memory.observe(f"My dog is called Biscuit {number}.", at=AT)
    return memory


def test_a_stream_that_is_left_drops_its_turn(memory: AgentMemory) -> None:
    """By break in a with block, by aclose, by letting go of it, before its first piece: the state stays."""

    async def leave() -> None:
        async with memory.astream(QUESTION, max_new_tokens=200) as stream:
            async for _ in stream:
                break
        with pytest.raises(ClosedError):
            _ = stream.reply
        second = memory.astream(QUESTION, max_new_tokens=200)
        await anext(second)
        await second.aclose()
        await second.aclose()
        third = memory.astream(QUESTION, max_new_tokens=200)
        await anext(third)
        del third
        gc.collect()
        await memory.astream(QUESTION).aclose()

    asyncio.run(leave())
    assert memory.history() == []
    assert memory.chat("Hello", max_new_tokens=2)


def test_a_task_cancelled_while_it_waits_its_turn_leaves_the_queue(memory: AgentMemory) -> None:
    """The stream before it ends as usual; the cancelled call never was; the next one comes through."""

    async def live() -> None:
        first = memory.stream("Hello", max_new_tokens=6)
        next(first)
        second = asyncio.create_task(memory.achat(QUESTION, max_new_tokens=4))
        for _ in range(5):
            await asyncio.sleep(0)
        second.cancel()
        first.read()
        with pytest.raises(asyncio.CancelledError):
            await second
        await memory.achat("And again?", max_new_tokens=4)

    asyncio.run(asyncio.wait_for(live(), 60))
    assert [turn.messages[0]["content"] for turn in memory.history()] == ["Hello", "And again?"]


def test_a_call_in_the_middle_of_its_own_stream_is_refused(memory: AgentMemory) -> None:
    """The task would wait for itself, and a plain call would stop the loop; other tasks just queue."""

    async def live() -> None:
        stream = memory.astream(QUESTION, max_new_tokens=6)
        await anext(stream)
        for call in (
            lambda: memory.achat("Hello"),
            lambda: memory.aobserve("Hello"),
            lambda: memory.agenerate([{"role": "user", "content": "Hello"}]),
        ):
            with pytest.raises(AgentBusyError):
                await call()
        with pytest.raises(AgentBusyError):
            memory.chat("Hello")
        other = asyncio.create_task(memory.achat("And again?", max_new_tokens=2))
        await asyncio.sleep(0)
        async for _ in stream:
            pass
        await other

    asyncio.run(asyncio.wait_for(live(), 60))
    assert [turn.messages[0]["content"] for turn in memory.history()] == [QUESTION, "And again?"]


def test_closing_a_memory_in_the_middle_of_an_async_stream_drops_the_turn(model: LanguageModel) -> None:
    """As a handler does whose client went away: the loop is not held up, and the agent is free."""
    home = InMemoryHome()

    async def handler() -> None:
        with AgentMemory.resume("ada", model=model, home=home, config=SMALL) as memory:
            stream = memory.astream(QUESTION, max_new_tokens=50)
            await anext(stream)
            raise ConnectionResetError

    async def live() -> None:
        with pytest.raises(ConnectionResetError):
            await handler()
        with AgentMemory.resume("ada", model=model, home=home) as memory:
            assert memory.tokens_held == 0

    asyncio.run(asyncio.wait_for(live(), 60))


def test_what_cannot_be_used_is_refused_when_it_is_awaited(memory: AgentMemory) -> None:
    """InputError, and the memory is free."""

    async def live() -> None:
        for call in (
            lambda: memory.achat(""),
            lambda: memory.achat("Hi", max_tokens=4),
            lambda: memory.agenerate([]),
            lambda: memory.aobserve(" "),
        ):
            with pytest.raises(InputError):
                await call()
        stream = memory.astream("")
        with pytest.raises(InputError):
            await anext(stream)
        await memory.achat("Hi", max_new_tokens=2)

    asyncio.run(live())
    assert len(memory.history()) == 1

"""Fact 5: a turn is all or nothing, whatever ends it: an exception, a closed stream, a cancellation, a kill."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from agentmem.agent import AgentMemory, Reply, observing
from agentmem.engine.model import LanguageModel
from agentmem.errors import DamagedError, InputError, StoreError
from agentmem.store import InMemoryHome
from agentmem.store.base import Home, NewTurn, Turn
from support.agent_state import state_of
from support.killed_agent import LONG, PART
from support.tiny_language_model import SMALL, language_model

AT = "2026-01-02T03:04:05+00:00"
QUESTION = "What is my dog called? Please answer, thank you very much indeed."


class BoomError(Exception):
    """What the tests throw into the machinery."""


@pytest.fixture
def model() -> LanguageModel:
    """The shared tiny model."""
    return language_model()


def begun(home: Home | Path, model: LanguageModel) -> AgentMemory:
    """An agent with a past that left the window: its next turn recalls."""
    memory = AgentMemory.resume("ada", model=model, home=home, config=SMALL)
    memory.chat("Hello there! My dog is called Biscuit.", max_new_tokens=10, at=AT)
    memory.observe("The quick brown fox jumps over the lazy dog. " * 4, at=AT)
    memory.chat("How far is it?", max_new_tokens=12, at=AT)
    return memory


def twins(kind: str, folder: Path, model: LanguageModel) -> tuple[AgentMemory, AgentMemory]:
    """An agent, and another that is the same to the bit, identity included."""
    if kind == "memory":
        homes = InMemoryHome(), InMemoryHome()
        begun(homes[0], model).close()
        homes[1]._agents["ada"] = _copied(homes[0])
        return tuple(AgentMemory.resume("ada", model=model, home=home) for home in homes)  # type: ignore[return-value]
    begun(folder / "a", model).close()
    shutil.copytree(folder / "a", folder / "b")
    return tuple(AgentMemory.resume("ada", model=model, home=folder / name) for name in "ab")  # type: ignore[return-value]


def _copied(home: InMemoryHome) -> Any:
    import copy

    return copy.deepcopy(home._agents["ada"])


@pytest.fixture(params=["disk", "memory"])
def pair(
    request: pytest.FixtureRequest, tmp_path: Path, model: LanguageModel
) -> tuple[AgentMemory, AgentMemory]:
    """Twins on disk and in memory."""
    return twins(request.param, tmp_path, model)


def assert_goes_on_as(memory: AgentMemory, twin: AgentMemory) -> None:
    """The next turn is the twin's, to the bit."""
    replies = [one.chat("And back again?", max_new_tokens=8, at=AT) for one in (memory, twin)]
    assert replies[0].text == replies[1].text
    assert replies[0].state_id == replies[1].state_id
    assert state_of(memory) == state_of(twin)


@contextmanager
def raising_in_layer(model: LanguageModel, layer: int, call: int) -> Iterator[None]:
    """The model's ``call``-th forward raises when it reaches ``layer``."""
    calls = 0

    def boom(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise BoomError

    hook = model.binding.model.model.layers[layer].self_attn.register_forward_hook(boom)
    try:
        yield
    finally:
        hook.remove()


def test_an_exception_in_any_layer_of_any_forward_leaves_the_state_before(
    pair: tuple[AgentMemory, AgentMemory], model: LanguageModel
) -> None:
    """In each chunk of the prompt, at the first decoded token and behind a reselection, in both layers."""
    memory, twin = pair
    before = state_of(memory)
    for layer in (0, 1):
        for call in (1, 2, 3, 4, 12, 15):
            with raising_in_layer(model, layer, call), pytest.raises(BoomError):
                memory.chat(QUESTION, max_new_tokens=20)
            assert memory.checkpoint() == before["checkpoint"]
            assert memory.tokens_held == before["tokens"]
    assert state_of(memory) == before
    assert_goes_on_as(memory, twin)


def test_an_exception_while_writing_leaves_the_state_before(
    pair: tuple[AgentMemory, AgentMemory], model: LanguageModel
) -> None:
    """append and observe are dropped whole too."""
    memory, twin = pair
    before = state_of(memory)
    for call in (1, 3):
        with raising_in_layer(model, 1, call), pytest.raises(BoomError):
            memory.append([{"role": "user", "content": QUESTION * 2}])
        with raising_in_layer(model, 1, call), pytest.raises(BoomError):
            memory.observe(QUESTION * 2)
    assert state_of(memory) == before
    assert_goes_on_as(memory, twin)


def test_an_exception_in_a_logits_processor_leaves_the_state_before(
    pair: tuple[AgentMemory, AgentMemory],
) -> None:
    """At the first, a middle and the last token; and so does one that leaves no token to choose."""
    memory, twin = pair
    before = state_of(memory)
    for place in (0, 5, 11):
        calls: list[int] = []

        def boom(_: Tensor, scores: Tensor, calls: list[int] = calls, place: int = place) -> Tensor:
            calls.append(1)
            if len(calls) > place:
                raise BoomError
            return scores

        with pytest.raises(BoomError):
            memory.generate(
                [{"role": "user", "content": QUESTION}], logits_processor=[boom], max_new_tokens=12
            )
    with pytest.raises(InputError):
        memory.generate(
            [{"role": "user", "content": QUESTION}], logits_processor=[lambda _, s: s.fill_(float("-inf"))]
        )
    assert state_of(memory) == before
    assert_goes_on_as(memory, twin)


def test_a_stream_closed_at_any_piece_leaves_the_state_before(pair: tuple[AgentMemory, AgentMemory]) -> None:
    """Not started, after each piece, and by being let go of."""
    memory, twin = pair
    before = state_of(memory)
    memory.stream(QUESTION, max_new_tokens=10).close()
    for pieces in range(1, 8):
        stream = memory.stream(QUESTION, max_new_tokens=10)
        for _ in range(pieces):
            next(stream)
        stream.close()
        assert memory.checkpoint() == before["checkpoint"]
        assert memory.tokens_held == before["tokens"]
    for _ in memory.stream(QUESTION, max_new_tokens=10):
        break
    assert state_of(memory) == before
    assert_goes_on_as(memory, twin)


def test_not_remembering_leaves_the_state_before(pair: tuple[AgentMemory, AgentMemory]) -> None:
    """remember=False answers as a remembered turn would, and nothing of it is kept, digests included."""
    memory, twin = pair
    before = state_of(memory)
    reply = memory.chat(QUESTION * 5, max_new_tokens=30, remember=False, at=AT)

    assert reply.state_id is None
    assert state_of(memory) == before
    assert twin.chat(QUESTION * 5, max_new_tokens=30, remember=False, at=AT).text == reply.text
    assert_goes_on_as(memory, twin)


def test_a_failing_commit_leaves_the_state_before(
    pair: tuple[AgentMemory, AgentMemory], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the store cannot commit, the caller is told and the turn is gone."""
    memory, twin = pair
    before = state_of(memory)

    def fail(_: NewTurn) -> Turn:
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(memory._store, "commit", fail)
        with pytest.raises(StoreError):
            memory.chat(QUESTION, max_new_tokens=4)
        with pytest.raises(StoreError):
            memory.append([{"role": "user", "content": QUESTION}])
    assert state_of(memory) == before
    assert_goes_on_as(memory, twin)


class Waiting:
    """A logits processor that stops at its sixth token until it is told to go on."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        self._calls = 0

    def __call__(self, _: Tensor, scores: Tensor) -> Tensor:
        self._calls += 1
        if self._calls == 6:
            self.reached.set()
            assert self.go_on.wait(30)
        return scores


def test_cancelled_async_calls_leave_the_state_before(pair: tuple[AgentMemory, AgentMemory]) -> None:
    """achat and agenerate cancelled in the middle of a reply, astream left after a piece."""
    memory, twin = pair
    before = state_of(memory)

    async def cancelled(call: Callable[[Waiting], Coroutine[Any, Any, Reply]]) -> None:
        waiting = Waiting()
        task = asyncio.create_task(call(waiting))
        await asyncio.to_thread(waiting.reached.wait, 30)
        task.cancel()
        await asyncio.sleep(0)
        waiting.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def live() -> None:
        await cancelled(lambda waiting: memory.achat(QUESTION, logits_processor=[waiting]))
        message = {"role": "user", "content": QUESTION}
        await cancelled(lambda waiting: memory.agenerate([message], logits_processor=[waiting]))
        async with memory.astream(QUESTION, max_new_tokens=200) as stream:
            async for _ in stream:
                break

    asyncio.run(live())
    assert state_of(memory) == before
    assert_goes_on_as(memory, twin)


def test_an_observation_keeps_whole_parts(
    pair: tuple[AgentMemory, AgentMemory], model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in its third part it keeps two; repeated, it goes on there, and ends as if never stopped."""
    monkeypatch.setattr(observing, "PART_TOKENS", PART)
    memory, twin = pair
    turns = len(memory.history())

    def stop(done: int, _: int) -> None:
        if done > 2 * PART + 8:
            raise BoomError

    with pytest.raises(BoomError):
        memory.observe(LONG, source="long", at=AT, on_progress=stop)
    assert [turn.kind for turn in memory.history()[turns:]] == ["observe", "observe"]
    memory.observe(LONG, source="long", at=AT)
    twin.observe(LONG, source="long", at=AT)

    assert "".join(turn.messages[0]["content"] for turn in memory.history()[turns:]) == LONG
    assert state_of(memory) == state_of(twin)
    assert_goes_on_as(memory, twin)


@pytest.mark.parametrize("where", ["prefill", "decode", "observe"])
def test_a_killed_process_leaves_the_state_before(where: str, tmp_path: Path, model: LanguageModel) -> None:
    """SIGKILL in a prompt, in a reply, between the parts of a long text; then the agent goes on as its twin."""
    memory, twin = twins("disk", tmp_path, model)
    before = state_of(memory)
    memory.close()
    command = [sys.executable, "-m", "support.killed_agent", str(tmp_path / "a"), where]
    died = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[1])
    assert died.returncode == -signal.SIGKILL, died.stderr

    memory = AgentMemory.resume("ada", model=model, home=tmp_path / "a")
    assert memory.verify(deep=True).ok
    if where == "observe":
        kept = len(memory.history()) - len(before["history"])
        assert kept == 3
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(observing, "PART_TOKENS", PART)
            receipts = [one.observe(LONG, source="long", at=AT) for one in (memory, twin)]
        assert receipts[0].tokens_prefilled < receipts[1].tokens_prefilled
    else:
        assert state_of(memory) == before
    assert state_of(memory) == state_of(twin)
    assert_goes_on_as(memory, twin)


def test_a_damaged_past_is_refused_before_the_model_sees_it(tmp_path: Path, model: LanguageModel) -> None:
    """A flipped byte in the K/V is a DamagedError in the turn that would read it; the state stays."""
    memory = begun(tmp_path, model)
    checkpoint = memory.checkpoint()
    memory.close()
    (segment,) = tmp_path.glob("agents/*/kv/*.safetensors")
    data = bytearray(segment.read_bytes())
    header = 8 + int.from_bytes(data[:8], "little")
    data[header + 64] ^= 0xFF
    segment.write_bytes(data)

    memory = AgentMemory.resume("ada", model=model, home=tmp_path)
    with pytest.raises(DamagedError):
        memory.chat(QUESTION)
    assert memory.checkpoint() == checkpoint

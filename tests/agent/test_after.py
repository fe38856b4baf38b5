"""Turns that go on from an earlier state: a fork in one call, and all or nothing like any other turn."""

from __future__ import annotations

import asyncio
import copy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from agentmem.agent import AgentMemory, Reply
from agentmem.engine.model import LanguageModel
from agentmem.errors import InputError, ReadOnlyError, StateForgottenError, StateNotFoundError
from agentmem.store import DiskHome, InMemoryHome
from agentmem.store.base import Home
from support.agent_state import state_of
from support.tiny_language_model import SMALL, language_model

AT = "2026-01-02T03:04:05+00:00"
ASKED = [{"role": "user", "content": "What is my dog called? Please answer, thank you very much indeed."}]
FILLER = "The quick brown fox jumps over the lazy dog. How far is it? About 12 km, and back again. " * 2


class BoomError(Exception):
    """What the tests throw into the machinery."""


@pytest.fixture(params=["disk", "memory"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """A home on disk and one in memory."""
    return DiskHome(tmp_path) if request.param == "disk" else InMemoryHome()


@pytest.fixture
def model() -> LanguageModel:
    """The shared tiny model."""
    return language_model()


@pytest.fixture
def memory(home: Home, model: LanguageModel) -> AgentMemory:
    """Four turns; the past of the second left the window."""
    memory = AgentMemory.resume("ada", model=model, home=home, config=SMALL)
    memory.chat("Hello there! My dog is called Biscuit.", max_new_tokens=10, at=AT)
    memory.observe(FILLER, at=AT)
    memory.chat("How far is it?", max_new_tokens=12, at=AT)
    memory.observe(FILLER.upper(), at=AT)
    return memory


def seen(memory: AgentMemory) -> dict[str, Any]:
    """All that can be seen, but for the digests: a cache, counted as not there until it is needed again."""
    return {key: value for key, value in state_of(memory).items() if key != "digests"}


def states(memory: AgentMemory) -> list[str]:
    """The states of the current branch."""
    return [turn.state_id for turn in memory.history()]


def check_same(one: Reply, other: Reply) -> None:
    """Both replies are the same bits."""
    assert one.token_ids == other.token_ids
    assert one.state_id == other.state_id
    assert [(b.start, b.share, b.text) for b in one.receipt.blocks] == [
        (b.start, b.share, b.text) for b in other.receipt.blocks
    ]
    assert one.usage == other.usage


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_after_is_rewind_and_generate(memory: AgentMemory, home: Home, place: int) -> None:
    """From any state: the reply, its state id and what is stored are those of rewind() and generate()."""
    state = states(memory)[place]
    forked = memory.generate(ASKED, max_new_tokens=12, at=AT, after=state)
    found = seen(memory)
    assert forked.receipt.tokens_reread == 0
    assert states(memory)[-2:] == [state, forked.state_id]
    memory.rewind(state)
    check_same(memory.generate(ASKED, max_new_tokens=12, at=AT), forked)
    again = seen(memory)
    for one in (found, again):
        one["history"] = [(turn.state_id, turn.messages) for turn in one["history"]]
    assert again == found


def test_after_none_is_before_the_first_turn(memory: AgentMemory) -> None:
    """A turn after None begins a conversation of its own; the other one stays reachable by id."""
    old = memory.checkpoint()
    reply = memory.generate(ASKED, max_new_tokens=5, at=AT, after=None)
    assert states(memory) == [reply.state_id]
    assert reply.usage.cached_tokens == 0
    assert len(memory.history(at=old)) == 4
    assert memory.history(at=None) == []


def test_append_after(memory: AgentMemory) -> None:
    """Messages without an answer fork just the same."""
    first = states(memory)[0]
    receipt = memory.append([{"role": "user", "content": "Hello"}], at=AT, after=first)
    assert [turn.kind for turn in memory.history()] == ["chat", "append"]
    assert receipt.tokens_held == memory.tokens_held


def test_a_retry_that_comes_out_the_same(memory: AgentMemory) -> None:
    """A greedy answer given again after the same state has the same id, and both branches can be gone on from."""
    state = states(memory)[1]
    first = memory.generate(ASKED, max_new_tokens=8, at=AT, after=state)
    second = memory.generate(ASKED, max_new_tokens=8, at=AT, after=state)
    assert second.state_id == first.state_id
    assert len(states(memory)) == 3
    turn = memory.history()[-1].turn
    assert memory.history(at=first.state_id)[-1].turn == turn
    memory.generate(ASKED, max_new_tokens=8, at=AT, after=first.state_id)
    assert memory.history()[-2].turn == turn


def test_an_answer_from_an_earlier_state_that_is_not_remembered(memory: AgentMemory) -> None:
    """remember=False: the reply is that state's, its blocks tell what that branch keeps, and nothing has moved."""
    before = seen(memory)
    state = states(memory)[2]
    kept = memory.generate(ASKED, max_new_tokens=8, at=AT, after=state)
    assert kept.receipt.blocks
    memory.rewind(before["checkpoint"])
    reply = memory.generate(ASKED, max_new_tokens=8, at=AT, after=state, remember=False)
    assert reply.token_ids == kept.token_ids
    told = {block.start: block.text for block in kept.receipt.blocks}
    assert reply.receipt.blocks
    assert all(told[block.start].startswith(block.text) for block in reply.receipt.blocks)
    assert (reply.state_id, reply.receipt.tokens_held) == (None, before["tokens"])
    assert seen(memory) == before


def failing(place: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A logits processor that fails at a token."""
    calls = 0

    def process(_: Tensor, scores: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > place:
            raise BoomError
        return scores

    return process


@pytest.mark.parametrize("place", [0, 1, 2, None])
def test_a_turn_that_fails_leaves_everything(memory: AgentMemory, home: Home, place: int | None) -> None:
    """A failed generation and a closed stream: head, log and history as before, here and after reopening."""
    before = seen(memory)
    after = None if place is None else states(memory)[place]
    for token in (0, 5):
        with pytest.raises(BoomError):
            memory.generate(ASKED, logits_processor=[failing(token)], after=after)
        assert seen(memory) == before
    stream = memory.generate_stream(ASKED, max_new_tokens=100, after=after)
    next(stream)
    stream.close()
    assert seen(memory) == before
    assert memory.verify(deep=True).ok
    stream = memory.generate_stream(ASKED, max_new_tokens=100, after=after)
    next(stream)
    memory.close()
    memory = AgentMemory.resume("ada", model=language_model(), home=home)
    assert seen(memory) == before


def test_a_cancelled_task_leaves_everything(memory: AgentMemory) -> None:
    """agenerate cancelled in the middle of a reply after an earlier state."""
    before = seen(memory)
    reached, go_on = threading.Event(), threading.Event()

    def wait(_: Tensor, scores: Tensor) -> Tensor:
        reached.set()
        assert go_on.wait(30)
        return scores

    async def live() -> None:
        call = memory.agenerate(ASKED, logits_processor=[wait], after=states(memory)[0])
        task = asyncio.create_task(call)
        await asyncio.to_thread(reached.wait, 30)
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(live())
    assert seen(memory) == before


def test_after_dropped_turns_it_goes_on_as_if_they_had_not_been(model: LanguageModel) -> None:
    """Digests lost to a dropped turn are made again: the next replies are the same bits."""
    homes = InMemoryHome(), InMemoryHome()
    one = AgentMemory.resume("ada", model=model, home=homes[0], config=SMALL)
    one.observe(FILLER, at=AT)
    one.chat("How far is it?", max_new_tokens=12, at=AT)
    one.close()
    homes[1]._agents["ada"] = copy.deepcopy(homes[0]._agents["ada"])
    one, twin = (AgentMemory.resume("ada", model=model, home=home) for home in homes)
    with pytest.raises(BoomError):
        one.generate(ASKED, logits_processor=[failing(3)], after=None)
    for _ in range(2):
        check_same(*(each.generate(ASKED, max_new_tokens=10, at=AT) for each in (one, twin)))
    assert state_of(one) == state_of(twin)


def test_a_state_that_cannot_be_gone_on_from(memory: AgentMemory, home: Home) -> None:
    """Unknown, forgotten, or not text: a typed error, for every verb, and nothing has changed."""
    memory.append([{"role": "user", "content": "The secret is zanzibar."}], at=AT)
    gone = memory.checkpoint()
    memory.forget(match="zanzibar")
    before = seen(memory)
    for state, error in (("0" * 32, StateNotFoundError), (gone, StateForgottenError)):
        for call in (
            lambda state: memory.generate(ASKED, after=state),
            lambda state: memory.generate_stream(ASKED, after=state).read(),
            lambda state: memory.append(ASKED, after=state),
            lambda state: memory.history(at=state),
        ):
            with pytest.raises(error):
                call(state)
    for wrong in (5, b"head", ["head"]):
        with pytest.raises(InputError, match="after"):
            memory.generate(ASKED, after=wrong)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="at"):
            memory.history(at=wrong)  # type: ignore[arg-type]
    assert seen(memory) == before
    memory.close()
    reader = AgentMemory.resume("ada", model=language_model(), home=home, read_only=True)
    with pytest.raises(ReadOnlyError):
        reader.generate(ASKED, after=before["history"][0].state_id)


def test_the_history_of_any_branch(memory: AgentMemory) -> None:
    """history(at=...) is the branch that ends there, wherever the head is; limit counts from its end."""
    whole = memory.history()
    memory.generate(ASKED, max_new_tokens=4, at=AT, after=whole[0].state_id)
    assert memory.history(at=whole[3].state_id) == whole
    assert memory.history(at=whole[3].state_id, limit=2) == whole[2:]
    assert memory.history(at=memory.checkpoint()) == memory.history()


@pytest.mark.parametrize("where", ["prefill-after", "decode-after"])
def test_a_killed_process_leaves_everything(tmp_path: Path, model: LanguageModel, where: str) -> None:
    """SIGKILL in a turn after the first state: the head is where it was, and the files verify."""
    memory = AgentMemory.resume("ada", model=model, home=tmp_path, config=SMALL)
    memory.chat("Hello there! My dog is called Biscuit.", max_new_tokens=10, at=AT)
    memory.observe(FILLER, at=AT)
    memory.chat("How far is it?", max_new_tokens=12, at=AT)
    before = seen(memory)
    memory.close()
    command = [sys.executable, "-m", "support.killed_agent", str(tmp_path), where]
    died = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[1])
    assert died.returncode == -signal.SIGKILL, died.stderr

    memory = AgentMemory.resume("ada", model=model, home=tmp_path)
    assert memory.verify(deep=True).ok
    assert seen(memory) == before

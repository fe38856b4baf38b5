"""Parking a memory between calls: warm, but free for others; and what happens when they came."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentmem.agent import AgentMemory
from agentmem.engine.model import LanguageModel
from agentmem.errors import AgentBusyError, AgentNotFoundError, ClosedError, ReadOnlyError
from agentmem.store import DiskHome, InMemoryHome
from agentmem.store.base import Home
from support.agent_state import state_of
from support.tiny_language_model import SMALL, language_model

AT = "2026-01-02T03:04:05+00:00"
QUESTION = "What is my dog called? Please answer, thank you very much indeed."
FILLER = "The quick brown fox jumps over the lazy dog. How far is it? About 12 km, and back again. " * 2
WRITER = """
import sys
from pathlib import Path
from agentmem.agent import AgentMemory
from support.tiny_language_model import language_model
with AgentMemory.resume("ada", model=language_model(), home=Path(sys.argv[1]), create=False) as memory:
    memory.append([{"role": "user", "content": "Another process was here."}])
"""


@pytest.fixture(params=["disk", "memory"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """A home on disk and one in memory."""
    return DiskHome(tmp_path) if request.param == "disk" else InMemoryHome()


@pytest.fixture
def model() -> LanguageModel:
    """The shared tiny model."""
    return language_model()


def begun(home: Home, model: LanguageModel) -> AgentMemory:
    """An agent with a past that left the window."""
    memory = AgentMemory.resume("ada", model=model, home=home, config=SMALL)
    memory.chat("Hello there! My dog is called Biscuit.", max_new_tokens=10, at=AT)
    memory.observe(FILLER, at=AT)
    memory.chat("How far is it?", max_new_tokens=12, at=AT)
    return memory


CALLS: dict[str, Callable[[AgentMemory], Any]] = {
    "chat": lambda memory: memory.chat("Hello"),
    "generate_stream": lambda memory: memory.generate_stream([{"role": "user", "content": "Hello"}]),
    "append": lambda memory: memory.append([{"role": "user", "content": "Hello"}]),
    "observe": lambda memory: memory.observe("Hello"),
    "checkpoint": lambda memory: memory.checkpoint(),
    "explain": lambda memory: memory.explain(),
    "history": lambda memory: memory.history(),
    "search": lambda memory: memory.search("dog"),
    "verify": lambda memory: memory.verify(),
    "rewind": lambda memory: memory.rewind(None),
    "fork": lambda memory: memory.fork("eve"),
    "forget": lambda memory: memory.forget(turn=1),
    "achat": lambda memory: asyncio.run(memory.achat("Hello")),
}


def test_parked_it_refuses_every_call(home: Home, model: LanguageModel) -> None:
    """ClosedError that names unpark(); the names and figures it holds can still be read."""
    memory = begun(home, model)
    tokens = memory.tokens_held
    memory.park()
    memory.park()
    for call in CALLS.values():
        with pytest.raises(ClosedError, match="unpark"):
            call(memory)
    assert (memory.agent_id, memory.tokens_held, memory.language_model) == ("ada", tokens, model)
    assert "parked" in repr(memory)
    assert memory.unpark()
    assert memory.unpark()
    assert len(memory.history()) == 3


def test_it_goes_on_as_if_never_parked(tmp_path: Path, model: LanguageModel) -> None:
    """Parked between all turns: the same bits, and nothing is checked or read a second time."""
    straight = begun(DiskHome(tmp_path / "straight"), model)
    parked = begun(DiskHome(tmp_path / "parked"), model)
    start = [one._store.bytes_read for one in (straight, parked)]
    for number in range(3):
        before = parked._store.bytes_read
        parked.park()
        with AgentMemory.resume("ada", model=model, home=tmp_path / "parked", read_only=True) as reader:
            assert len(reader.history()) == 3 + number
        assert parked.unpark()
        assert parked._store.bytes_read == before
        replies = [one.chat(QUESTION, max_new_tokens=12, at=AT) for one in (straight, parked)]
        assert replies[0].token_ids == replies[1].token_ids
        assert [b.share for b in replies[0].receipt.blocks] == [b.share for b in replies[1].receipt.blocks]
    grown = [one._store.bytes_read - old for one, old in zip((straight, parked), start, strict=True)]
    assert grown[0] == grown[1]
    assert state_of(straight)["kv"] == state_of(parked)["kv"]
    assert parked.verify(deep=True).ok


def test_another_process_wrote(tmp_path: Path, model: LanguageModel) -> None:
    """False, and closed; resumed, the memory holds what the other process said."""
    memory = begun(DiskHome(tmp_path), model)
    memory.park()
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    subprocess.run(command, check=True, timeout=120, cwd=Path(__file__).parents[1])
    assert not memory.unpark()
    with pytest.raises(ClosedError, match="resume"):
        memory.history()
    with pytest.raises(ClosedError):
        memory.unpark()
    memory.close()
    with AgentMemory.resume("ada", model=model, home=tmp_path) as fresh:
        assert fresh.history()[-1].messages[0]["content"] == "Another process was here."
        assert fresh.verify(deep=True).ok


def test_others_may_have_it(home: Home, model: LanguageModel, tmp_path: Path) -> None:
    """Parked, an agent is opened, exported and forked beside it; opened for writing, it is busy, then out of date."""
    memory = begun(home, model)
    memory.park()
    AgentMemory.export("ada", tmp_path / "ada.agentmem", home=home, kv=True)
    home.fork("ada", "eve")
    assert memory.unpark()
    memory.park()
    with AgentMemory.resume("ada", model=model, home=home) as other:
        with pytest.raises(AgentBusyError):
            memory.unpark()
        other.chat("Hello", max_new_tokens=3)
    assert not memory.unpark(wait=1)
    with AgentMemory.resume("eve", model=model, home=home) as fork:
        assert len(fork.history()) == 3


def test_it_was_deleted_and_made_anew(home: Home, model: LanguageModel) -> None:
    """False, however often; the new agent is left alone."""
    memory, gone = begun(home, model), None
    for again in (False, True):
        memory.park()
        AgentMemory.delete("ada", home=home)
        if again:
            gone = AgentMemory.resume("ada", model=model, home=home, config=SMALL)
            gone.chat("Hello", max_new_tokens=3)
        assert not memory.unpark()
        if not again:
            with pytest.raises(AgentNotFoundError):
                AgentMemory.resume("ada", model=model, home=home, create=False)
            memory = begun(home, model)
    assert gone is not None
    gone.chat("And again", max_new_tokens=3)
    assert len(gone.history()) == 2


def test_closing_and_leaving_what_is_parked(home: Home, model: LanguageModel) -> None:
    """close() and the end of a with block work while parked, and free what is left."""
    with begun(home, model) as memory:
        memory.park()
    memory.close()
    with pytest.raises(ClosedError, match="closed"):
        memory.unpark()
    with pytest.raises(ClosedError, match="closed"):
        memory.park()
    AgentMemory.delete("ada", home=home)


def test_not_in_the_middle_of_a_stream(home: Home, model: LanguageModel) -> None:
    """A stream of this thread is in the way; another thread's is waited for. A reader has nothing to park."""
    memory = begun(home, model)
    stream = memory.stream("Hello", max_new_tokens=30)
    next(stream)
    with pytest.raises(AgentBusyError, match="stream"):
        memory.park()
    parking = threading.Thread(target=memory.park)
    parking.start()
    reply = stream.read()
    parking.join(30)
    assert not parking.is_alive()
    assert memory.unpark()
    assert memory.checkpoint() == reply.state_id
    with AgentMemory.resume("ada", model=model, home=home, read_only=True) as reader:
        with pytest.raises(ReadOnlyError):
            reader.park()
        assert reader.unpark()


def test_two_that_take_turns(home: Home, model: LanguageModel) -> None:
    """Two memories of one agent, each parked while the other talks: no turn is lost, whoever comes first."""
    said = []
    memory = begun(home, model)
    memory.park()
    for number in range(4):
        other = AgentMemory.resume("ada", model=model, home=home)
        said.append(f"This is number {number}.")
        other.append([{"role": "user", "content": said[-1]}], at=AT)
        other.park()
        assert not memory.unpark()
        memory = other
    assert memory.unpark()
    assert [turn.messages[0]["content"] for turn in memory.history()[3:]] == said

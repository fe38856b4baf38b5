"""The open memories of a process: shared, parked, opened anew only when they must be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agentmem import AgentMemory, ClosedError, FingerprintMismatchError, InMemoryHome
from langchain_agentmem.pool import Opening, Pool
from support.tiny_language_model import SMALL, language_model


def opening(home: InMemoryHome, agent_id: str = "ada", **options: object) -> Opening:
    """How the tests open an agent."""
    return Opening(agent_id, home, **{"model": language_model(), "config": SMALL, **options})  # type: ignore[arg-type]


def test_a_memory_stays_open_for_the_next_borrower() -> None:
    """Two borrowers get the same object; in between anyone may write."""
    pool, home = Pool(), InMemoryHome()
    with pool.borrow(opening(home)) as seat:
        first = seat.memory
        first.chat("Hi", max_new_tokens=2)

    with pool.borrow(opening(home)) as seat:
        assert seat.memory is first
    with AgentMemory.resume("ada", home=home, model=language_model()) as other:
        assert len(other.history()) == 1


def test_what_is_not_asked_for_may_be_as_it_is() -> None:
    """A tool that names no model and no options takes the memory as the chat model opened it, and the other way round."""
    pool, home = Pool(), InMemoryHome()
    with pool.borrow(opening(home)) as seat:
        first = seat.memory

    with pool.borrow(opening(home, model=None, config=None, wait=1.0)) as seat:
        assert seat.memory is first
    with pool.borrow(opening(home)) as seat:
        assert seat.memory is first


def test_other_options_open_it_anew() -> None:
    """Another configuration takes hold at once; another model is refused as ever."""
    pool, home = Pool(), InMemoryHome()
    with pool.borrow(opening(home)) as seat:
        first = seat.memory

    with pool.borrow(opening(home, config=SMALL.changed(recall_tokens=16))) as seat:
        assert seat.memory is not first
        assert seat.memory.config.recall_tokens == 16
    with (
        pytest.raises(FingerprintMismatchError),
        pool.borrow(opening(home, model=language_model(seed=1))),
    ):
        pass
    with pool.borrow(opening(home)) as seat:
        assert seat.memory.config == SMALL


def test_notes_end_with_the_memory_they_are_about() -> None:
    """What a call noted is gone when somebody else has written since."""
    pool, home = Pool(), InMemoryHome()
    with pool.borrow(opening(home)) as seat:
        seat.notes["seen"] = 1
    with pool.borrow(opening(home)) as seat:
        assert seat.notes == {"seen": 1}

    with AgentMemory.resume("ada", home=home, model=language_model()) as other:
        other.chat("Hi", max_new_tokens=2)

    with pool.borrow(opening(home)) as seat:
        assert seat.notes == {}


def test_only_so_many_stay_open() -> None:
    """Beyond the limit the ones not used for the longest time are closed."""
    pool, home = Pool(kept_open=2), InMemoryHome()
    memories = []
    for name in ("a", "b", "c"):
        with pool.borrow(opening(home, name)) as seat:
            memories.append(seat.memory)

    with pytest.raises(ClosedError):
        memories[0].unpark()
    assert memories[1].unpark()
    memories[1].park()
    pool.close()
    with pytest.raises(ClosedError):
        memories[2].unpark()


def test_a_forked_child_leaves_its_parents_memories_alone(tmp_path: Path) -> None:
    """After os.fork the child opens its own; both go on."""
    code = f"""
import os, sys
sys.path.insert(0, "tests")
from langchain_agentmem.pool import POOL, Opening, borrow
from support.tiny_language_model import SMALL, language_model
import torch
torch.set_num_threads(1)
how = Opening("ada", {str(tmp_path)!r}, language_model(), SMALL)
with borrow(how) as memory:
    memory.chat("parent", max_new_tokens=2)
child = os.fork()
if child == 0:
    with borrow(how) as memory:
        memory.append([{{"role": "user", "content": "child"}}])
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
with borrow(how) as memory:
    memory.append([{{"role": "user", "content": "parent again"}}])
    print([turn.messages[0]["content"] for turn in memory.history()])
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['parent', 'child', 'parent again']"

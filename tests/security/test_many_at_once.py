"""Several processes and threads: one writer, readers that never see half a turn, forked children, and no leaks."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentmem.agent import AgentMemory
from agentmem.engine.model import LanguageModel
from agentmem.errors import AgentBusyError, StaleWriterError
from agentmem.store import DiskHome, MemoryKey
from agentmem.store.base import Turn
from support.leaks import leaks
from support.stores import add_turn, contents, create, expected, same
from support.tiny_language_model import SMALL, language_model

KEYS = {"plain": None, "encrypted": MemoryKey.generate()}
WRITERS, READERS, TURNS = 4, 3, 12
FORK = multiprocessing.get_context("fork")


@pytest.fixture(params=KEYS)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> DiskHome:
    """A home with an empty agent "ada", plain or encrypted."""
    home = DiskHome(tmp_path, segment_tokens=64, digest_blocks=4, key=KEYS[request.param])
    create(home).close()
    return home


@pytest.fixture
def model() -> LanguageModel:
    """The shared tiny model."""
    return language_model()


def in_processes(*calls: Callable[[], None]) -> list[int | None]:
    """Run each call in a forked process of its own; returns their exit codes."""
    children = [FORK.Process(target=call) for call in calls]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    return [child.exitcode for child in children]


def write(home: DiskHome, writer: int) -> None:
    """Open, wait for the others, add a turn, close: again and again. The turn's seed says who wrote it."""
    for number in range(TURNS):
        store = home.open("ada", wait=60)
        seed = 1 + writer * TURNS + number
        add_turn(store, seed, 3 + seed % 9, source=str(writer), part=number, receipt={"seed": seed})
        store.close()


def read(home: DiskHome) -> None:
    """Look at it until all is written; whatever is there must be whole turns."""
    seen, deadline = -1, time.monotonic() + 100
    while seen < WRITERS * TURNS and time.monotonic() < deadline:
        store = home.open("ada", read_only=True)
        turns = store.turns()
        assert len(turns) >= seen, "a turn that was there is gone"
        seen = len(turns)
        check(turns, store.token_ids(0, store.log.committed))
        if turns:
            whole = expected(*((turn.receipt["seed"], turn.stop - turn.start) for turn in turns))
            assert same(contents(store.log), whole[: len(whole)])
        store.close()
    assert seen == WRITERS * TURNS


def check(turns: list[Turn], ids: list[int]) -> None:
    """Texts, ids and lengths of all turns belong together."""
    place = 0
    for turn in turns:
        seed = turn.receipt["seed"]
        assert (turn.start, turn.stop - turn.start) == (place, 3 + seed % 9)
        assert turn.messages[0]["content"] == f"message number{seed}"
        assert ids[turn.start : turn.stop] == [seed * 1000 + i for i in range(turn.stop - turn.start)]
        place = turn.stop
    assert place <= len(ids)


def test_writers_take_turns_and_readers_see_whole_ones(home: DiskHome) -> None:
    """Four processes write, three read: nothing is lost, nothing is torn, and each writer's order is kept."""
    writers = [lambda writer=writer: write(home, writer) for writer in range(WRITERS)]  # type: ignore[misc]
    codes = in_processes(*writers, *[lambda: read(home)] * READERS)
    assert codes == [0] * (WRITERS + READERS)
    store = home.open("ada")
    assert store.verify(deep=True).ok
    for writer in range(WRITERS):
        assert [turn.part for turn in store.observed_parts(str(writer))] == list(range(TURNS))


def test_one_writer_wins_and_the_others_are_told(home: DiskHome) -> None:
    """Eight at once, none waits: one gets it, seven a typed error that names the holder."""
    gate, done = FORK.Barrier(8), FORK.Barrier(8)

    def rush() -> None:
        gate.wait(60)
        try:
            store = home.open("ada")
        except AgentBusyError as error:
            done.wait(60)
            os._exit(7 if "process" in str(error) else 1)
        done.wait(60)
        add_turn(store, 1, 5)
        os._exit(0)

    assert sorted(in_processes(*[rush] * 8), key=str) == [0] + [7] * 7
    assert len(home.open("ada").turns()) == 1


def test_a_forked_child_is_told_and_does_no_harm(tmp_path: Path, model: LanguageModel) -> None:
    """Every call in it is a typed error, at once, even while the parent's other thread is inside; closing is quiet."""
    memory = AgentMemory.resume("ada", model=model, home=tmp_path, config=SMALL)
    memory.append([{"role": "user", "content": "Hello"}])
    reader = AgentMemory.resume("ada", model=model, home=tmp_path, read_only=True)
    stream = memory.stream("Tell me more", max_new_tokens=4)
    next(stream)

    def child() -> None:
        threading.Timer(30, lambda: os._exit(9)).start()  # a call that hangs is a failure
        calls: list[Callable[[], Any]] = [
            lambda: memory.chat("Hi"),
            lambda: memory.append([{"role": "user", "content": "Hi"}]),
            lambda: memory.rewind(None),
            memory.history,
            memory.verify,
            memory.park,
            reader.history,
            lambda: reader.search("hello"),
            lambda: memory._store.turns(),
            lambda: memory._store.search("hello"),
            lambda: memory._store.note("a", 1),
            lambda: memory._store.token_ids(0, 1),
        ]
        for number, call in enumerate(calls):
            try:
                call()
            except StaleWriterError:
                continue
            os._exit(20 + number)
        memory.close()
        reader.close()
        try:
            AgentMemory.resume("ada", model=model, home=tmp_path)
        except AgentBusyError:
            os._exit(0)
        os._exit(8)

    assert in_processes(child) == [0]
    assert stream.read().text is not None
    assert len(memory.history()) == 2
    assert len(reader.history()) == 1  # as it was when it was opened
    memory.append([{"role": "user", "content": "Still here"}])
    memory.close()
    assert AgentMemory.resume("ada", model=model, home=tmp_path).verify(deep=True).ok


def test_agents_on_one_engine_from_many_threads(tmp_path: Path, model: LanguageModel) -> None:
    """Each says, bit for bit, what it says alone."""
    names = [f"agent {number}" for number in range(6)]

    def life(name: str, home: Path, said: dict[str, list[Any]]) -> None:
        with AgentMemory.resume(name, model=model, home=home, config=SMALL) as memory:
            memory.observe(f"I am {name}. " * 12, at="2026-01-02T03:04:05+00:00")
            for number in range(3):
                reply = memory.chat(f"{name} asks {number}", max_new_tokens=6, at="2026-01-02T03:04:05+00:00")
                said.setdefault(name, []).append((reply.token_ids, reply.receipt.recalled_mass))

    alone: dict[str, list[Any]] = {}
    for name in names:
        life(name, tmp_path / "alone", alone)
    together: dict[str, list[Any]] = {}
    threads = [threading.Thread(target=life, args=(name, tmp_path / "together", together)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert together == alone


@pytest.mark.parametrize(("kind", "openings", "turns"), [("plain", 300, 100), ("encrypted", 100, 30)])
def test_nothing_leaks(tmp_path: Path, model: LanguageModel, kind: str, openings: int, turns: int) -> None:
    """Openings and turns leave no descriptor, no map, no thread and no memory behind."""
    found = leaks(tmp_path, model, KEYS[kind], openings=openings, turns=turns)
    assert found.descriptors == 0
    assert found.maps <= 2
    assert found.threads == 0
    assert found.megabytes < 12

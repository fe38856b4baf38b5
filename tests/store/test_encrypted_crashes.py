"""An encrypted agent is killed, or its disk fails, at every call that changes a file: nothing acknowledged is lost."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from agentmem.errors import AgentMemError, StoreError
from agentmem.store import DiskHome, MemoryKey
from support.stores import add_turn, contents, create, expected, same

KEY = MemoryKey.generate()
CALLS = ("open", "pwrite", "fdatasync", "fsync", "ftruncate", "rename", "replace", "unlink", "link")
STEPS = 7


def fresh(folder: Path) -> DiskHome:
    """A home whose agent "ada" has one turn and a note."""
    home = DiskHome(folder, segment_tokens=64, digest_blocks=4, key=KEY)
    store = create(home)
    store.digests.select("mean")
    add_turn(store, 1, 40, blocks=2)
    store.note("at", 0)
    store.close()
    return home


def life(home: DiskHome, acknowledge: Callable[[int], object]) -> None:
    """Turns, a rewind, a forgotten turn, a rewritten index, another key; tells of each step that was acknowledged."""
    with closing(home.open("ada")) as store:
        add_turn(store, 2, 30, blocks=1)
        acknowledge(1)
        add_turn(store, 3, 5)
        acknowledge(2)
        store.rewind("state-2")
        acknowledge(3)
        add_turn(store, 4, 50, blocks=1)
        acknowledge(4)
        store.forget([2])
        acknowledge(5)
        store.collect(prune=True)
        acknowledge(6)
    home.change_key("ada", KEY)
    acknowledge(7)


STATES: tuple[tuple[tuple[int, int], ...], ...] = (
    ((1, 40),),
    ((1, 40), (2, 30)),
    ((1, 40), (2, 30), (3, 5)),
    ((1, 40), (2, 30)),
    ((1, 40), (2, 30), (4, 50)),
    ((1, 40), (-2, 30), (4, 50)),
    ((1, 40), (-2, 30), (4, 50)),
    ((1, 40), (-2, 30), (4, 50)),
)
"""What the log holds after so many steps."""


def check(home: DiskHome, done: int) -> None:
    """It opens, verifies, holds what was acknowledged or one step more, and goes on."""
    store = home.open("ada", read_only=True)
    found = contents(store.log)
    assert any(same(found, expected(*STATES[step])) for step in range(done, min(done + 2, STEPS + 1)))
    store.close()
    store = home.open("ada")
    assert store.verify(deep=True).ok
    assert store.noted("at") == 0
    before = store.log.committed
    add_turn(store, 9, 7)
    store.close()
    store = home.open("ada", read_only=True)
    assert store.log.committed == before + 7
    store.close()


@contextmanager
def calling(
    instead: Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any],
) -> Iterator[None]:
    """Every call that changes files goes through ``instead``."""
    real = {name: getattr(os, name) for name in CALLS}

    def through(name: str) -> Callable[..., Any]:
        return lambda *args, **options: instead(name, real[name], args, options)

    for name in CALLS:
        setattr(os, name, through(name))
    try:
        yield
    finally:
        for name, call in real.items():
            setattr(os, name, call)


def calls_of(home: DiskHome) -> int:
    """How many such calls the life takes."""
    count = 0

    def counted(_: str, real: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        nonlocal count
        count += 1
        return real(*args, **options)

    with calling(counted):
        life(home, lambda _: None)
    return count


def test_killed_before_every_call(tmp_path: Path) -> None:
    """The process ends there and then; what it had acknowledged is there, whole."""
    total = calls_of(fresh(tmp_path / "counted"))
    assert total > 60
    for number in range(1, total + 1, 6):
        home = fresh(tmp_path / str(number))
        told = killed_at(home, number)
        check(home, told[-1] if told else 0)


def killed_at(home: DiskHome, number: int) -> bytes:
    """The steps that a process acknowledged before it was killed at a call."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        left = number

        def ending(_: str, real: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os._exit(9)
            return real(*args, **options)

        with suppress(BaseException), calling(ending):
            life(home, lambda step: os.write(writing, bytes([step])))
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    told = os.read(reading, STEPS + 1)
    os.close(reading)
    return told


@pytest.mark.parametrize(("code", "once"), [(errno.ENOSPC, False), (errno.EIO, True)], ids=["full", "once"])
def test_the_disk_fails_at_every_call(tmp_path: Path, code: int, once: bool) -> None:
    """A typed error, and what was acknowledged is there when the disk works again; half a write is not a whole one."""
    total = calls_of(fresh(tmp_path / "counted"))
    for number in range(1 + (code == errno.EIO), total + 1, 11):
        home = fresh(tmp_path / str(number))
        left, done = number, 0

        def failing(
            name: str, real: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]
        ) -> Any:
            nonlocal left
            left -= 1
            if left == 0 or (left < 0 and not once):
                if name == "pwrite" and len(args[1]) > 1:
                    real(args[0], memoryview(args[1]).cast("B")[: len(args[1]) // 2], *args[2:])
                raise OSError(code, os.strerror(code))
            return real(*args, **options)

        def told(step: int) -> None:
            nonlocal done
            done = step

        with calling(failing):
            try:
                life(home, told)
            except AgentMemError as error:
                assert isinstance(error, StoreError)  # noqa: PT017
        check(home, done)

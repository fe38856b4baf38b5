"""The file agent.db-shm, SQLite's shared index of its log: whatever is in it, nothing is lost, and nothing is wrong.

It is made anew when nobody has the agent open. While somebody has, it is memory that processes share: what is
written over it is noticed; but if it is cut off, the system may end whoever touches it next, inside SQLite.
"""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from agentmem.store import DiskHome
from support.killing import killed
from support.stores import DIGEST_BLOCKS, SEGMENT_TOKENS, add_turn, contents, create, expected, same

SIZE = 32_768
OVERWRITTEN = {
    "zeros": bytes(SIZE),
    "noise": random.Random(1).randbytes(SIZE),
    "a header of noise": random.Random(2).randbytes(136),
    "longer": random.Random(3).randbytes(2 * SIZE + 7),
}
CUT = {"empty": 0, "a part": 1000, "a page": 4096}
TURNS = [(1, 40), (2, 50)]


@pytest.fixture
def home(tmp_path: Path) -> DiskHome:
    """A home with an agent of two turns."""
    made = DiskHome(tmp_path, segment_tokens=SEGMENT_TOKENS, digest_blocks=DIGEST_BLOCKS)
    store = create(made)
    for seed, count in TURNS:
        add_turn(store, seed, count)
    store.close()
    return made


def overwrite(path: Path, data: bytes) -> None:
    """Put bytes over the start of a file, in place; one that is not there is made."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.pwrite(fd, data, 0)
    os.close(fd)


def cut(path: Path, size: int) -> None:
    """Leave a file its first bytes."""
    overwrite(path, b"")
    os.truncate(path, size)


def check(home: DiskHome, *turns: tuple[int, int]) -> None:
    """Readers and writers see exactly these turns, it verifies, and can go on."""
    reader = home.open("ada", read_only=True)
    assert same(contents(reader.log), expected(*turns))
    reader.close()
    store = home.open("ada")
    assert same(contents(store.log), expected(*turns))
    assert store.verify(deep=True).ok
    add_turn(store, 9, 5)
    store.close()


HARMS: list[Callable[[Path], None]] = [
    *(lambda path, data=data: overwrite(path, data) for data in OVERWRITTEN.values()),
    *(lambda path, size=size: cut(path, size) for size in CUT.values()),
]
NAMES = [*OVERWRITTEN, *CUT]


@pytest.mark.parametrize("harm", HARMS, ids=NAMES)
def test_of_a_closed_agent_it_says_nothing(home: DiskHome, harm: Callable[[Path], None]) -> None:
    """A file that lies beside a closed agent is not believed."""
    harm(home.folder_of("ada") / "agent.db-shm")
    check(home, *TURNS)


@pytest.mark.parametrize("harm", HARMS, ids=NAMES)
def test_of_a_killed_writer_it_is_not_believed(home: DiskHome, harm: Callable[[Path], None]) -> None:
    """What a killed writer acknowledged stands in the log, and is found without it."""
    killed(home, lambda store: add_turn(store, 3, 30))
    harm(home.folder_of("ada") / "agent.db-shm")
    check(home, *TURNS, (3, 30))


@pytest.mark.parametrize("data", OVERWRITTEN.values(), ids=OVERWRITTEN)
def test_written_over_while_it_is_open(home: DiskHome, data: bytes) -> None:
    """Reader and writer go on, and nothing is lost."""
    writer = home.open("ada")
    add_turn(writer, 3, 30)
    reader = home.open("ada", read_only=True)
    overwrite(home.folder_of("ada") / "agent.db-shm", data)
    assert same(contents(reader.log), expected(*TURNS, (3, 30)))
    add_turn(writer, 4, 20)
    reader.close()
    writer.close()
    check(home, *TURNS, (3, 30), (4, 20))


@pytest.mark.parametrize("size", CUT.values(), ids=CUT)
def test_cut_off_while_it_is_open(home: DiskHome, size: int) -> None:
    """The writer may be ended by the system; every turn that it was told of is there, and at most one more."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside torch's idle threads
        child = os.fork()
    if child == 0:
        faulthandler.disable()
        try:
            store = home.open("ada")
            add_turn(store, 3, 30)
            cut(home.folder_of("ada") / "agent.db-shm", size)
            add_turn(store, 4, 20)
            os.write(writing, b"4")
            store.close()
        finally:
            os._exit(0)
    os.close(writing)
    told = os.read(reading, 1)
    os.close(reading)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (0, -signal.SIGBUS)
    reader = home.open("ada", read_only=True)
    turns = [turn.state_id for turn in reader.turns()]
    reader.close()
    assert turns[:3] == ["state-1", "state-2", "state-3"]
    assert turns[3:] == ["state-4"] or (not told and not turns[3:])
    check(home, *TURNS, (3, 30), *[(4, 20)] * (len(turns) - 3))

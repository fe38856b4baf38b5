"""One writer per agent, across processes, forks and stale openings."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from agentmem.errors import AgentBusyError, AgentNotFoundError, StaleWriterError
from agentmem.store import DiskHome
from agentmem.store.lock import WriterLock
from support.stores import add_turn, contents, create, expected, kv, new_turn, same

HOLDER = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
from agentmem.store import DiskHome
store = DiskHome(Path({home!r})).open("ada")
print("held", flush=True)
sys.stdin.readline()
store.close()
print("closed", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def home(tmp_path: Path) -> DiskHome:
    """A home whose agent "ada" has one turn."""
    home = DiskHome(tmp_path)
    store = create(home)
    add_turn(store, 1, 10)
    store.close()
    return home


def test_writer_in_another_process(home: DiskHome) -> None:
    """The other process's id is named; waiting ends when it lets go; readers are never kept out."""
    program = HOLDER.format(paths=[str(Path(__file__).parents[2])], home=str(home.home))
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(AgentBusyError, match=f"process {process.pid}.*wait"):
            home.open("ada")
        with pytest.raises(AgentBusyError):
            home.delete("ada")
        with pytest.raises(AgentBusyError):
            home.fork("ada", "bob")
        assert not home.exists("bob")
        reader = home.open("ada", read_only=True)
        assert same(contents(reader.log), expected((1, 10)))
        reader.close()
        process.stdin.write("close\n")
        process.stdin.flush()
        store = home.open("ada", wait=60.0)
        assert same(contents(store.log), expected((1, 10)))
        store.close()
        process.stdin.write("end\n")


def test_stale_epoch_is_fenced(home: DiskHome) -> None:
    """A writer whose epoch was passed commits nothing, whatever became of its lock."""
    old = home.open("ada")
    old._access.release()  # as if the lock had been lost, on a file system that forgets locks
    new = home.open("ada")
    old._access._lock = new._access._lock
    old.begin()
    old.log.append(*kv(2, 5))
    with pytest.raises(StaleWriterError, match="epoch"):
        old.commit(new_turn(2, 5))
    with pytest.raises(StaleWriterError):
        old.note("a", 1)
    assert new.head is not None and new.head.state_id == "state-1"
    old._access._lock = None
    old.close()
    new.close()


def test_forked_child_cannot_write(home: DiskHome) -> None:
    """A child process made by fork is refused, and the parent keeps its lock and its turn."""
    program = textwrap.dedent(
        """
        import os, sys
        from pathlib import Path
        sys.path[:0] = {paths!r}
        from agentmem.errors import StaleWriterError, AgentBusyError
        from agentmem.store import DiskHome
        from support.stores import *
        home = DiskHome(Path({home!r}))
        store = home.open("ada")
        store.begin()
        store.log.append(*kv(2, 5))
        child = os.fork()
        if child == 0:
            try:
                store.commit(new_turn(2, 5))
            except StaleWriterError:
                store.close()
                try:
                    home.open("ada")
                except AgentBusyError:
                    os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        store.commit(new_turn(2, 5))
        store.close()
        store = home.open("ada")
        assert same(contents(store.log), expected((1, 10), (2, 5)))
        """
    ).format(paths=[str(Path(__file__).parents[1]), str(Path(__file__).parents[2])], home=str(home.home))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr


def test_lock_of_a_removed_agent(home: DiskHome, tmp_path: Path) -> None:
    """Who waited for an agent that was removed meanwhile is told that it is gone."""
    folder = next((tmp_path / "agents").iterdir())
    path = folder / "lock"
    home.delete("ada")

    with pytest.raises(AgentNotFoundError, match="ada"):
        WriterLock(path, "ada", wait=0.1)


def test_lock_knows_its_process(tmp_path: Path) -> None:
    """The lock file tells whether this very process holds it; releasing empties it."""
    path = tmp_path / "lock"
    assert not WriterLock.held_here(path)
    lock = WriterLock(path, "ada")
    assert WriterLock.held_here(path)
    assert path.read_text().split()[0] == str(os.getpid())
    lock.release()
    lock.release()
    assert not WriterLock.held_here(path)

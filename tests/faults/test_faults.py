"""The gates' own machinery: faults really happen, and harm that is done on purpose is noticed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from faults import shim
from faults.crash_states import crash_states
from faults.op_log import Op, Tree
from faults.results import Found, GateResult
from faults.tables import BEGIN, END, write

TESTS = Path(__file__).resolve().parents[1]
ROOT, HOME, FILE = 1, 2, 3


@pytest.fixture(scope="module")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process under the shim."""
    why = shim.missing()
    if why is not None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(why)
    environment = shim.preloaded_environment(tmp_path_factory.mktemp("shim"))
    paths = [str(TESTS), str(TESTS.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {**environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def ran(program: str, environment: dict[str, str]) -> str:
    """What a program says under the shim."""
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_each_kind_of_fault_happens(preloaded: dict[str, str], tmp_path: Path) -> None:
    """The chosen call fails with the chosen error, writes half, or ends the process; others pass."""
    program = f"""
import errno, os
from pathlib import Path
from faults import children, shim
from faults.shim import Fault, Kind, Verb
folder = Path({str(tmp_path)!r})
path = folder / "file"

def write():
    with path.open("wb", buffering=0) as file:
        done = file.write(b"0123456789")
        os.fsync(file.fileno())
    return str(done)

def under(fault):
    def body():
        shim.arm(folder, fault)
        return write()
    return children.tried(body)

shim.arm(folder, Fault(Kind.FAIL, -1)); write(); assert shim.disarm() == 3  # open, write, fsync
assert "No space" in under(Fault(Kind.FAIL, 2, errno.ENOSPC)).text
assert "Input/output" in under(Fault(Kind.FAIL, 3, errno.EIO)).text
assert under(Fault(Kind.FAIL, 4, errno.EIO)).text == "10"
assert under(Fault(Kind.SHORT, 1, verbs=Verb.WRITE)).text == "5"
assert "Input/output" in under(Fault(Kind.FAIL, 1, errno.EIO, forever=True)).text
path.unlink()
assert under(Fault(Kind.KILL_BEFORE, 2)).ended == "killed" and path.read_bytes() == b""
assert under(Fault(Kind.KILL_TORN, 1, verbs=Verb.WRITE)).ended == "killed" and path.read_bytes() == b"01234"
assert under(Fault(Kind.KILL_AFTER, 2)).ended == "killed" and path.read_bytes() == b"0123456789"
(Path("/dev/null")).write_bytes(b"elsewhere")
"""
    ran(program, preloaded)


def test_reads_fail_too(preloaded: dict[str, str], tmp_path: Path) -> None:
    """The chosen read fails, or gives half: Python's and SQLite's; changes are not counted then."""
    program = f"""
import errno, os, sqlite3
from pathlib import Path
from faults import children, shim
from faults.shim import Fault, Kind, Verb
folder = Path({str(tmp_path)!r})
path, base = folder / "file", folder / "base"
path.write_bytes(b"0123456789")
sqlite3.connect(base).execute("CREATE TABLE t (a)")

def read():
    with path.open("rb", buffering=0) as file:
        return str(len(file.read(10)) + len(os.pread(file.fileno(), 10, 0)))

def select():
    return str(sqlite3.connect(base).execute("SELECT * FROM t").fetchall())

def under(fault, act):
    def body():
        shim.arm(folder, fault)
        return act()
    return children.tried(body).text

shim.arm(folder, Fault(Kind.FAIL, -1, verbs=Verb.READ)); read(); path.write_bytes(b"0123456789")
assert shim.disarm() == 2
for nth in (1, 2):
    assert "Input/output" in under(Fault(Kind.FAIL, nth, errno.EIO, verbs=Verb.READ), read)
    assert under(Fault(Kind.SHORT, nth, verbs=Verb.READ), read) == "15"
assert "disk I/O error" in under(Fault(Kind.FAIL, 1, errno.EIO, forever=True, verbs=Verb.READ), select)
assert under(Fault(Kind.SHORT, 2, verbs=Verb.READ), select) == "[]"
"""
    ran(program, preloaded)


def test_the_clock_moves_for_everybody(preloaded: dict[str, str]) -> None:
    """Python and SQLite are told another year; durations stay what they are."""
    program = """
import sqlite3, time
from datetime import datetime
from faults import shim
here, tick = datetime.now().year, time.monotonic()
shim.move_clock(10 * 366 * 86400)
(there,) = sqlite3.connect(":memory:").execute("SELECT strftime('%Y', 'now')").fetchone()
print(datetime.now().year - here, int(there) - here, time.monotonic() - tick < 5)
"""
    assert ran(program, preloaded) == "10 10 True"


def test_harm_is_noticed(preloaded: dict[str, str]) -> None:
    """A store that does not sync loses acknowledged turns to power cuts, and one that raises raw errors is told."""
    program = """
from unittest.mock import patch
from faults import gate_power, faulted, operations, children
from faults.trees import scratch

def worst(**options):
    with scratch() as folder:
        story = gate_power._session(folder / "session")
    cases = faulted.thinned(story.states(tries=1, seed=1), 60, 1)
    return [text for case in cases for text in gate_power.judged(*case)]

with patch("agentmem.store.log.sync_file"), patch("agentmem.store.birth.sync_folder"):
    assert worst(), "nothing was noticed"
turn = next(one for one in operations.PLAIN if one.name == "turn")
with scratch() as folder:
    prepared = faulted.prepare(turn, folder / "turn")
    cases = faulted.thinned(faulted.failures_of(prepared), 16, 1)
    with patch("agentmem.store.index.of_sqlite", lambda agent_id, error: error):
        assert faulted.run(cases), "nothing was noticed"
"""
    ran(program, preloaded)


def test_a_salvage_that_the_disk_refuses_changes_nothing(preloaded: dict[str, str]) -> None:
    """However late it fails: the damaged index is as it was, and is salvaged once there is room."""
    program = """
import errno
from faults import faulted
from faults.mending_operations import mendings
from faults.shim import Fault, Kind, Verb
from faults.trees import scratch

with scratch() as folder:
    (salvage,) = [one for one in mendings(folder / "mendings") if one.name == "salvage"]
    calls = faulted.calls_of(salvage, Verb.WRITE)
    faults = [Fault(Kind.FAIL, nth, errno.ENOSPC, verbs=Verb.WRITE) for nth in range(calls - 60, calls, 6)]
    print(faulted.run([faulted.Case(salvage, fault) for fault in faults]))
"""
    assert ran(program, preloaded) == "[]"


def test_crash_states_follow_the_syncs() -> None:
    """Unsynced bytes and names are lost or kept; synced ones are always there."""
    before = Tree(ROOT, {}, {ROOT: {}})
    made = Op("C", FILE, ROOT, "file", 0, b"", 0)
    first = Op("W", FILE, 0, "", 0, b"aaaa", 4)
    second = Op("W", FILE, 0, "", 2, b"bbbb", 4)
    ops = [made, first, Op("S", FILE, 0, "", 0, b"", 0), Op("S", ROOT, 0, "", 0, b"", 0), mark(1), second]
    states = list(crash_states(before, ops, tries=8, seed=3))
    after = [state for state in states if state.acknowledged == 1]
    contents = {state.tree.files[state.tree.folders[ROOT]["file"]] for state in after}

    assert {b"aaaa", b"aabbbb"} <= contents
    assert any("file" not in state.tree.folders[ROOT] for state in states if state.acknowledged == 0)
    assert all(one.startswith(b"aa") for one in contents)


def test_a_lost_rename_brings_the_old_file_back() -> None:
    """A rename is there once its folder was synced; before, either file may be."""
    before = Tree(ROOT, {HOME: b"old", FILE: b"new"}, {ROOT: {"a": HOME, "b": FILE}})
    rename = Op("R", FILE, ROOT, "b/a", ROOT, b"", 0)
    lost, kept = list(crash_states(before, [rename], tries=0, seed=1))
    safe = list(crash_states(before, [rename, Op("S", ROOT, 0, "", 0, b"", 0)], tries=0, seed=1))[-1]

    assert lost.tree.folders[ROOT] == {"a": HOME, "b": FILE}
    assert kept.tree.folders[ROOT] == safe.tree.folders[ROOT] == {"a": FILE}


def test_the_table_is_written_between_the_marks(tmp_path: Path) -> None:
    """What stands around the table stays, and so do the rows of gates that were not run again."""
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    write(page, [GateResult("1 kills", Found(9, [], "a first run"), 1.0)])
    write(page, [GateResult("5 full", Found(0, [], "", skipped="no root"), 0.0)])
    write(page, [GateResult("1 kills", Found(5000, [], "a tiny model"), 60.0)])
    write(page, [GateResult("1 again", Found(7, [], "a tiny model"), 1.0)], note="; the size for CI")
    text = page.read_text()

    assert text.startswith(f"before\n{BEGIN}\n") and text.endswith(f"{END}\nafter\n")
    assert "| 1 kills | 5,000 | 0 | 60 s | a tiny model |" in text and "a first run" not in text
    assert "| 5 full | 0 | 0 | – | skipped: no root |" in text
    assert text.index("| 1 again | 7 | 0 | 1 s | a tiny model; the size for CI |") < text.index("| 1 kills")
    assert text.count("| 1 kills") == text.count("| gate |") == 1


def mark(number: int) -> Op:
    """An acknowledgement in a record."""
    return Op("K", 0, 0, "", number, b"", 0)

"""Changed bits and lost ends of every file, closed and open: right answers or typed errors, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

from agentmem.errors import AgentMemError, DamagedError
from agentmem.store import DiskHome, DiskStore
from support.flipping import LivedIn, answers, bits, equal, live
from support.stores import (
    DIGEST_BLOCKS,
    SEGMENT_TOKENS,
    add_turn,
    contents,
    create,
    digests,
    expected,
    memory_folder,
    same,
)

ALLOWED = {"right", "refused"}


@pytest.fixture(scope="module", params=[False, True], ids=["closed", "killed"])
def lived_in(request: pytest.FixtureRequest) -> Iterator[LivedIn]:
    """An agent that has been through much; the second as a killed writer leaves it, with a write-ahead log."""
    with TemporaryDirectory(dir=memory_folder()) as folder:
        yield LivedIn(Path(folder), wal=request.param)


def test_changed_bits(lived_in: LivedIn) -> None:
    """Any changed bit of any file: all answers are right, or a typed error says what is damaged."""
    found = {}
    for name, data in lived_in.files.items():
        used = [at for at, byte in enumerate(data) if byte]
        for at in used[:: max(1, len(used) // 60)]:
            changed = bytearray(data)
            changed[at] ^= 1 << at % 8
            found[f"{name} byte {at}"] = lived_in.outcome(name, bytes(changed))

    assert {case: outcome for case, outcome in found.items() if outcome not in ALLOWED} == {}
    assert {"right", "refused"} == set(found.values())


def test_lost_ends(lived_in: LivedIn) -> None:
    """Any file cut off anywhere: what was acknowledged is there, or a typed error says what is missing."""
    found = {}
    for name, data in lived_in.files.items():
        lengths = {0, 1, len(data) // 2, max(0, len(data) - 1), *range(0, len(data), max(1, len(data) // 20))}
        for length in sorted(lengths - {len(data)}):
            found[f"{name} at {length}"] = lived_in.outcome(name, data[:length])

    assert {case: outcome for case, outcome in found.items() if outcome not in ALLOWED} == {}


def test_a_log_that_lost_its_end_is_missed(lived_in: LivedIn) -> None:
    """SQLite drops what follows the damage without a word; the mark of the last commit speaks up."""
    log = Path("agent.db-wal")
    if log not in lived_in.files:
        pytest.skip("a closed agent has no write-ahead log")
    data = lived_in.files[log]
    for _, changed in bits(data, step=8 * 4096 + 8):
        assert lived_in.outcome(log, changed) == "refused"
    lived_in.put_back()
    (lived_in.folder / log).write_bytes(data[: len(data) // 2])
    for read_only in (True, False):
        with pytest.raises(DamagedError, match=r"agent\.db-wal is damaged at commits \d+ to \d+"):
            lived_in.home.open("ada", read_only=read_only)


@pytest.fixture
def home(tmp_path: Path) -> DiskHome:
    """A home with tiny segments."""
    return DiskHome(tmp_path, segment_tokens=SEGMENT_TOKENS, digest_blocks=DIGEST_BLOCKS)


def flip(path: Path, offset: int) -> None:
    """Change one bit of a file in place, as a writer that is not ours would."""
    fd = os.open(path, os.O_RDWR)
    byte = os.pread(fd, 1, offset)
    os.pwrite(fd, bytes([byte[0] ^ 16]), offset)
    os.close(fd)


def test_keys_changed_between_two_turns(home: DiskHome) -> None:
    """A live agent notices with its next turn what was changed in pages it had read before."""
    store = create(home)
    add_turn(store, 1, 100)
    assert same(contents(store.log), expected((1, 100)))
    segment = home._folder("ada") / "kv/000000.safetensors"
    flip(segment, 4096 + 3)

    store.begin()
    with pytest.raises(DamagedError, match=r"kv/000000\.safetensors.*slots 0 to 32 of layers\.0\.keys\[0\]"):
        contents(store.log)
    store.abort()
    flip(segment, 4096 + 3)
    add_turn(store, 2, 30)
    assert same(contents(store.log), expected((1, 100), (2, 30)))
    store.close()


def test_digests_changed_between_two_turns(home: DiskHome) -> None:
    """Digests that were changed since the last turn are not there in the next one, and can be made again."""
    store = create(home)
    store.digests.select("mean")
    add_turn(store, 1, 100, blocks=6)
    assert store.digests.count == 6
    flip(home._folder("ada") / "digests/000001.safetensors", 4096 + 5)

    store.begin()
    assert store.digests.count == 4
    store.digests.append([tensor[:, 4:] for tensor in digests(1, 6)])
    store.abort()
    add_turn(store, 2, 5, blocks=2)
    assert store.digests.count == 6
    store.close()
    assert home.open("ada").digests.count == 6


def test_index_changed_between_two_turns(home: DiskHome) -> None:
    """Bits of the index changed under an open agent: its answers, and those of the next opening, are right or refused."""
    store = create(home)
    live(store)
    path = home._folder("ada") / "agent.db"
    wanted = answers(store, "before")
    store.close()
    whole = path.read_bytes()
    used = [at for at, byte in enumerate(whole) if byte]
    for at in used[:: len(used) // 40]:
        mark = path.with_name("agent.mark").read_bytes()
        store = home.open("ada")
        flip(path, at)
        assert right_or_refused(store, wanted), at
        with suppress(AgentMemError):
            store.note("seen", at)
        store.close()
        with suppress(AgentMemError):
            store = home.open("ada", read_only=True)
            assert right_or_refused(store, wanted), at
            store.close()
        for name in ("agent.db-wal", "agent.db-shm"):
            path.with_name(name).unlink(missing_ok=True)
        path.write_bytes(whole)
        path.with_name("agent.mark").write_bytes(mark)


def right_or_refused(store: DiskStore, wanted: Mapping[str, Any]) -> bool:
    """Whether all answers are right, or a typed error was raised."""
    try:
        found = answers(store, "before")
    except AgentMemError:
        return True
    return all(equal(found[key], answer) for key, answer in wanted.items())


@pytest.mark.parametrize("length", [0, 4096, 9000])
def test_files_cut_off_between_two_turns(home: DiskHome, length: int) -> None:
    """Every mapped file cut off under a live agent: typed errors from every read, and never a signal."""
    store = create(home)
    store.digests.select("mean")
    add_turn(store, 1, 100, blocks=6)
    contents(store.log)
    for path in home._folder("ada").glob("*/*.safetensors"):
        os.truncate(path, min(length, path.stat().st_size - 1))

    with pytest.raises(DamagedError, match=r"bytes .* on"):
        contents(store.log)
    with pytest.raises(DamagedError, match=r"bytes .* on"):
        store.log.gather(0, torch.tensor([[69], [0]]), torch.empty(2, 1, 4), None)
    with pytest.raises(DamagedError, match=r"digests/000000.*bytes .* on"):
        store.digests.parts(0)
    assert not store.verify(deep=True).ok
    store.begin()
    assert store.digests.count == 0
    store.abort()
    with pytest.raises(DamagedError):
        add_turn(store, 2, 5)
    store.close()

"""Random bytes in the place of every file that is opened: typed errors, or the right answers, and nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from agentmem.agent import AgentMemory
from agentmem.agent.archive_file import ArchiveReader
from agentmem.errors import AgentMemError, ArchiveError, DamagedError
from agentmem.store import DiskHome
from agentmem.store.digest_log import DigestState, DigestSums, DiskDigestLog
from agentmem.store.mark import CommitMark
from agentmem.store.segment import segment_spec
from agentmem.store.tensor_file import TensorFile
from support.flipping import LivedIn
from support.stores import LAYOUT, memory_folder
from support.tiny_language_model import SMALL, language_model

SPEC = segment_spec(LAYOUT, 32)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory."""
    with TemporaryDirectory(dir=memory_folder()) as name:
        yield Path(name)


def noisy(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Contents that were never written: noise alone, and the data with noise in it, cut, doubled or moved."""
    chance = random.Random(seed)
    for number in range(count):
        at, length = chance.randrange(len(data)), chance.choice((1, 7, 60, 900))
        noise = chance.randbytes(length)
        yield (
            chance.randbytes(chance.randrange(len(data) + 200)),
            data[:at] + noise + data[at + length :],
            data[:at] + noise + data[at:],
            data[:at] + data[at + length :],
            data[at:] + data[:at],
        )[number % 5]


@pytest.mark.parametrize("wal", [False, True], ids=["closed", "killed"])
def test_store_files(folder: Path, *, wal: bool) -> None:
    """Index, write-ahead log, mark, segments, digests: 200 contents."""
    store = LivedIn(folder, wal=wal)
    found = set()
    for name, data in store.files.items():
        for changed in noisy(data, 16, len(str(name))) if data else ():
            found.add(store.outcome(name, changed))

    assert found == {"right", "refused"}


def test_segments_and_digest_files(folder: Path) -> None:
    """600 headers: a file opens only if size and header are those it was made with."""
    path = folder / "000000.safetensors"
    for changed in noisy(SPEC.header + bytes(SPEC.size - len(SPEC.header)), 300, 1):
        path.write_bytes(changed)
        whole = len(changed) == SPEC.size and changed.startswith(SPEC.header)
        if whole:
            TensorFile(path, SPEC, "ada").close()
        else:
            with pytest.raises(DamagedError, match=r"ada.*000000\.safetensors"):
                TensorFile(path, SPEC, "ada")
        stored = DigestState("mean", 4, {0: DigestSums(0, 4, bytes(16))})
        assert DiskDigestLog(folder, LAYOUT, 4, "ada", stored).count == 0


def test_marks(folder: Path) -> None:
    """300 marks: one that is not as it was written says nothing."""
    mark = CommitMark(folder, "ada")
    mark.write(7)
    data = mark.path.read_bytes()
    for changed in noisy(data, 300, 2):
        mark.path.write_bytes(changed)
        assert mark.read() == (7 if changed == data else 0)


def test_archives(folder: Path) -> None:
    """300 exports: an ArchiveError, or what was exported."""
    home = DiskHome(folder / "home")
    with AgentMemory.resume("ada", model=language_model(), home=home, config=SMALL) as memory:
        memory.observe("The quick brown fox jumps over the lazy dog.", source="fox")
    path = AgentMemory.export("ada", folder / "ada.agentmem", kv=True, home=home)
    data = path.read_bytes()
    with ArchiveReader(path) as archive:
        rows = archive.rows
    refused = 0
    for changed in noisy(data, 300, 3):
        path.write_bytes(changed)
        try:
            with ArchiveReader(path) as archive:
                assert archive.rows == rows
                archive.kv(language_model().layout, 0, archive.tokens)
        except ArchiveError:
            refused += 1

    assert refused > 200


def test_notes(folder: Path) -> None:
    """60 notes in the place of the configuration: it is refused by a typed error, or taken for what it says."""
    home, chance = DiskHome(folder / "home"), random.Random(4)
    AgentMemory.resume("ada", model=language_model(), home=home, config=SMALL).close()
    values = [
        [],
        3,
        "x",
        {"nope": 1},
        {"sink_tokens": None},
        {"chunk_tokens": -1},
        {"": ""},
        [[]],
        {"stamp": {}},
    ]
    values += [
        {chance.choice(list(SMALL.model_dump())): chance.choice([-1, 1e308, "é", [], {}])} for _ in range(51)
    ]
    refused = 0
    for value in values:
        store = home.open("ada")
        store.note("config", value)
        store.close()
        try:
            with AgentMemory.resume("ada", model=language_model(), home=home) as memory:
                assert json.dumps(memory.config.model_dump())
        except AgentMemError:
            refused += 1

    assert refused > 30

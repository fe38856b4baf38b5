"""Holes in segment files: what was freed is never touched through a map, whatever is read, verified or copied.

Reading a hole of a tmpfs through a map takes one of its pages, and ends the process where there is none; reading it
with pread takes none. So these agents lie on a tmpfs, and what their files take there must not grow.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from agentmem.errors import DamagedError, StaleReaderError
from agentmem.memory.source import KVLayout, TokenLog
from agentmem.store import DiskHome
from agentmem.store.files import allocated_bytes
from agentmem.store.tensor_file import TensorFile, TensorFileSpec, create_tensor_file
from support.stores import add_turn, contents, create, expected, memory_folder, same

LAYOUT = KVLayout(
    ((2, 64), (1, 128)), torch.float32
)  # a page of 32 slots is two pages of the system, and four
TURNS = (40, 75, 30, 60)
"""Tokens of the turns that are made; the second and the fourth are forgotten, and begin and end within a page."""
LEFT = ((1, 40), (-2, 75), (3, 30), (-4, 60), (5, 20))


def _is_tmpfs(folder: str | None) -> bool:
    mounts = Path("/proc/mounts")
    if folder is None or not mounts.exists():
        return False
    return any(line.split()[1:3] == [folder, "tmpfs"] for line in mounts.read_text().splitlines())


pytestmark = pytest.mark.skipif(not _is_tmpfs(memory_folder()), reason="there is no tmpfs to write to")


@pytest.fixture
def home() -> Iterator[DiskHome]:
    """A home on a tmpfs, with an agent that has holes."""
    with TemporaryDirectory(dir=memory_folder()) as folder:
        made = DiskHome(Path(folder), segment_tokens=128, digest_blocks=16)
        store = create(made, layout=LAYOUT)
        for seed, count in enumerate(TURNS, 1):
            add_turn(store, seed, count)
        store.forget([2, 4])
        add_turn(store, 5, 20)
        store.collect()
        store.close()
        yield made


def taken(home: DiskHome) -> int:
    """Bytes that the segment files of all agents take."""
    return sum(allocated_bytes(path) for path in home.home.glob("agents/*/kv/*"))


def gathered(log: TokenLog) -> list[torch.Tensor]:
    """Everything the log can read, token by token in another order."""
    order = torch.randperm(log.length, generator=torch.Generator().manual_seed(0))
    found = []
    for layer, (heads, dim) in enumerate(log.layout.layers):
        keys = torch.empty(heads, log.length, dim)
        values = torch.empty_like(keys)
        log.gather(layer, order.expand(heads, -1).contiguous(), keys, values)
        found += [out[:, order.argsort()] for out in (keys, values)]
    return found


@pytest.mark.parametrize("read", [contents, gathered])
@pytest.mark.parametrize("read_only", [False, True])
def test_reading_touches_no_hole(
    home: DiskHome, read: Callable[[TokenLog], list[torch.Tensor]], read_only: bool
) -> None:
    """Live and forgotten tokens are what they must be, and no page of the file system is taken for them."""
    before = taken(home)
    store = home.open("ada", read_only=read_only)
    assert same(read(store.log), expected(*LEFT, layout=LAYOUT))
    assert store.verify(deep=True).ok
    store.close()
    assert taken(home) == before


def test_a_reader_touches_no_hole_that_came_later(home: DiskHome) -> None:
    """A reader that was open before reads forgotten tokens again: nothing is taken, and it is told."""
    reader = home.open("ada", read_only=True)
    contents(reader.log)
    writer = home.open("ada")
    writer.forget([3])
    before = taken(home)
    with pytest.raises(StaleReaderError, match="Open it again"):
        contents(reader.log)
    assert taken(home) == before
    reader.close()
    writer.close()


def test_a_copy_has_the_same_holes(home: DiskHome) -> None:
    """Forked, and forgotten from in the fork: the copies of its files take no more room than the files they are of."""
    home.fork("ada", "bea")
    assert room(home, "bea") == room(home, "ada")
    fork = home.open("bea")
    fork.forget([1])
    assert same(contents(fork.log), expected((-1, 40), *LEFT[1:], layout=LAYOUT))
    fork.close()
    assert room(home, "bea")[0] < room(home, "ada")[0]  # the first turn's room is free, too
    assert room(home, "bea")[1] == room(home, "ada")[1]
    store = home.open("ada")
    assert same(contents(store.log), expected(*LEFT, layout=LAYOUT))
    store.close()


def room(home: DiskHome, agent_id: str) -> list[int]:
    """Bytes that each segment file of an agent takes."""
    return [allocated_bytes(path) for path in sorted(home.folder_of(agent_id).glob("kv/*"))]


def test_tokens_added_after_are_read_through_the_map(home: DiskHome) -> None:
    """Turns that are added while it is open lie in whole pages, beside those that have holes."""
    store = home.open("ada")
    add_turn(store, 6, 100)
    before = taken(home)
    assert same(gathered(store.log), expected(*LEFT, (6, 100), layout=LAYOUT))
    assert taken(home) == before
    assert store.verify(deep=True).ok
    store.close()


def test_a_failed_read_is_damage(tmp_path: Path) -> None:
    """A range that a file does not have, or that the disk does not give, is named."""
    spec = TensorFileSpec(("k",), ((1, 64),), 64, torch.float32)
    create_tensor_file(tmp_path / "f", spec)
    file = TensorFile(tmp_path / "f", spec, "ada")
    os.truncate(tmp_path / "f", spec.size - 100)
    with pytest.raises(DamagedError, match=f"bytes {spec.size - 100} on"):
        file.stored_bytes(0, 0, 0, 64)
    file.close()

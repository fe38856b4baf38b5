"""What the system would not let us do is no damage: no descriptors, no memory for a map, no right to a file."""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from agentmem.errors import DamagedError, StoreError
from agentmem.store import DiskHome, DiskStore, MemoryKey
from agentmem.store.segment import segment_spec
from agentmem.store.tensor_file import TensorFile, create_tensor_file
from support.encoding import again
from support.few_files import descriptors_left
from support.stores import (
    DIGEST_BLOCKS,
    LAYOUT,
    SEGMENT_TOKENS,
    add_turn,
    contents,
    create,
    expected,
    kv,
    memory_folder,
    new_turn,
    same,
)

WHOLE = expected((1, 100), (2, 50))
MOST = 24
"""More descriptors than any verb here needs."""


@pytest.fixture(params=["plain", "encrypted"])
def home(request: pytest.FixtureRequest) -> Iterator[DiskHome]:
    """A home whose agent "ada" has 150 tokens in three segments, and five digests in two files."""
    key = MemoryKey.generate() if request.param == "encrypted" else None
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        home = DiskHome(Path(folder), segment_tokens=SEGMENT_TOKENS, digest_blocks=DIGEST_BLOCKS, key=key)
        with_two_turns(create(home))
        yield home


def with_two_turns(store: Any) -> None:
    """Tell an agent what all tests here expect of it."""
    store.digests.select("mean")
    add_turn(store, 1, 100, blocks=5)
    add_turn(store, 2, 50)
    store.close()


Steps = Iterator[Any]
"""A verb: up to its yield with all descriptors there are, behind it with few."""


def opening(home: DiskHome) -> Steps:
    """Open it for writing and read everything."""
    yield
    store = home.open("ada")
    try:
        assert same(contents(store.log), WHOLE) and store.digests.count == 5
    finally:
        store.close()


def looking(home: DiskHome) -> Steps:
    """Open it read-only and read everything."""
    yield
    store = home.open("ada", read_only=True)
    try:
        assert same(contents(store.log), WHOLE) and len(store.turns()) == 2
        assert store.digests.count == 5
    finally:
        store.close()


def listing(home: DiskHome) -> Steps:
    """List all agents, and look at one."""
    yield
    assert [info.agent_id for info in home.list()] == ["ada"] and home.exists("ada")
    assert home.peek("ada").agent_id == "ada"


def forking(home: DiskHome) -> Steps:
    """Fork it."""
    yield
    home.fork("ada", "bob")


def salvaging(home: DiskHome) -> Steps:
    """Salvage it, although nothing is wrong with it."""
    yield
    assert home.salvage("ada").repair is not None


def salvaging_damage(home: DiskHome) -> Steps:
    """Salvage it with a damaged index."""
    index = home.folder_of("ada") / ("agent.db" if home.key is None else "agent.enc")
    index.write_bytes(index.read_bytes()[:-40] + b"?" * 40)
    yield
    home.salvage("ada")


def opened(verb: Callable[[DiskStore], Any]) -> Callable[[DiskHome], Steps]:
    """A verb of an agent that is open already, of which nothing was read yet."""

    def steps(home: DiskHome) -> Steps:
        store = home.open("ada")
        try:
            yield
            verb(store)
        finally:
            store.close()

    return steps


def turn(store: DiskStore) -> None:
    """One more turn, given up again."""
    store.begin()
    try:
        assert store.digests.count == 5
        store.log.append(*kv(3, 20))
        assert same([t[:, :150] for t in contents(store.log)], WHOLE)
    finally:
        store.abort()


def commit(store: DiskStore) -> None:
    """One more turn."""
    store.begin()
    try:
        store.log.append(*kv(3, 20))
        store.commit(new_turn(3, 20))
    except BaseException:
        store.abort()
        raise


READING: dict[str, Callable[[DiskHome], Steps]] = {
    "open": opening,
    "look": looking,
    "list": listing,
    "salvage": salvaging,
    "read": opened(lambda store: contents(store.log)),
    "turn": opened(turn),
    "verify": opened(lambda store: store.verify(deep=True)),
    "repair": opened(lambda store: store.repair(again(kv))),
}
WRITING: dict[str, Callable[[DiskHome], Steps]] = {
    "fork": forking,
    "commit": opened(commit),
    "forget": opened(lambda store: store.forget([2])),
    "rewind": opened(lambda store: store.rewind("state-1")),
    "collect": opened(lambda store: store.collect()),
    "salvage of damage": salvaging_damage,
}


@pytest.mark.parametrize("name", [*READING, *WRITING])
def test_without_descriptors_it_is_refused_and_nothing_is_called_damaged(home: DiskHome, name: str) -> None:
    """With 0, 1, 2, ... descriptors left: an error that says what to do, then success; the agent is as it was."""
    verb = {**READING, **WRITING}[name]
    refused: list[StoreError] = []
    for left in range(MOST):
        steps = verb(home)
        next(steps)
        try:
            with descriptors_left(left):
                next(steps, None)
            break
        except StoreError as error:
            refused.append(error)
        finally:
            steps.close()
        if name != "salvage of damage":
            store = home.open("ada")
            if (
                name != "forget"
            ):  # it is forgotten once that is committed, and its bytes go with the next opening
                assert same(contents(store.log), WHOLE)
            store.close()
    assert 0 < len(refused) < MOST
    assert not [error for error in refused if isinstance(error, DamagedError)]
    assert all("too many open files" in str(error).lower() for error in refused), refused
    store = home.open("ada", read_only=True)
    assert store.verify(deep=True).ok
    store.close()


REASONS = {
    errno.EMFILE: "ulimit",
    errno.ENFILE: "ulimit",
    errno.ENOMEM: "memory",
    errno.EACCES: "right",
    errno.EIO: "repair",
}
codes = pytest.mark.parametrize("code", REASONS, ids=lambda code: errno.errorcode[code])


def read(store: DiskStore) -> Tensor:
    """All keys of the first layer."""
    keys = torch.empty(2, 150, 4)
    store.log.read(0, 0, 150, keys, None)
    return keys


@codes
def test_a_segment_that_cannot_be_opened(home: DiskHome, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A lost medium is damage; no descriptors or rights are a StoreError with what to do about it."""
    store, real = home.open("ada"), os.open

    def fails(path: Any, *rest: Any, **more: Any) -> int:
        if "/kv/" in os.fspath(path):
            raise OSError(code, os.strerror(code), os.fspath(path))
        return real(path, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", fails)
        with pytest.raises(StoreError, match=REASONS[code]) as caught:
            read(store)
    assert isinstance(caught.value, DamagedError) == (code == errno.EIO)
    assert torch.equal(read(store), WHOLE[0])
    store.close()


@codes
@pytest.mark.parametrize("call", ["mmap", "pread"])
def test_a_segment_that_cannot_be_mapped_or_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    """The same of the calls behind the opening."""
    path, spec = tmp_path / "000000.safetensors", segment_spec(LAYOUT, SEGMENT_TOKENS)
    create_tensor_file(path, spec)

    def fails(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    def use() -> bytes:
        file = TensorFile(path, spec, "ada")
        try:
            with monkeypatch.context() as patched:
                patched.setattr(os, "pread", fails if call == "pread" else os.pread)
                return file.read(8192, 64)
        finally:
            file.close()

    with monkeypatch.context() as patched:
        patched.setattr(mmap, "mmap", fails if call == "mmap" else mmap.mmap)
        with pytest.raises(StoreError, match=REASONS[code]) as caught:
            use()
    assert isinstance(caught.value, DamagedError) == (code == errno.EIO)
    assert TensorFile(path, spec, "ada").read(8192, 64) == bytes(64)

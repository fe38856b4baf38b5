"""What a killed writer leaves behind: exactly the turns that were acknowledged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from agentmem.errors import StoreError
from agentmem.store import DiskHome, DiskStore
from agentmem.store.tensor_file import TensorWriter
from support.killing import Body, killed
from support.stores import (
    DIGEST_BLOCKS,
    SEGMENT_TOKENS,
    add_turn,
    contents,
    create,
    digests,
    expected,
    kv,
    new_turn,
    same,
)


@pytest.fixture
def home(tmp_path: Path) -> DiskHome:
    """A home with tiny segments."""
    return DiskHome(tmp_path, segment_tokens=SEGMENT_TOKENS, digest_blocks=DIGEST_BLOCKS)


def check(home: DiskHome, *turns: tuple[int, int]) -> None:
    """The agent holds exactly these turns, verifies, and can go on."""
    store = home.open("ada")
    assert [turn.stop - turn.start for turn in store.turns()] == [count for _, count in turns]
    assert same(contents(store.log), expected(*turns)) if turns else store.log.length == 0
    assert store.verify(deep=True).ok
    names = {path.name for path in (home.home / "agents").glob("*/kv/*")}
    used = sum(count for _, count in turns)
    assert len(names) == -(-used // SEGMENT_TOKENS)
    add_turn(store, 77, 90)
    store.close()
    store = home.open("ada")
    assert same(contents(store.log), expected(*turns, (77, 90)))
    store.close()


def unfinished(store: DiskStore, tokens: int = 200) -> None:
    """Write a turn without committing it."""
    store.begin()
    store.log.append(*kv(2, tokens))
    store.digests.append(digests(2, 9))


def finished(store: DiskStore) -> None:
    """Write a turn and commit it."""
    unfinished(store)
    store.commit(new_turn(2, 200))


def synced(store: DiskStore) -> None:
    """Write a turn and sync its bytes, but do not commit it."""
    unfinished(store)
    store.log.sync()


@pytest.mark.parametrize(
    ("body", "at"),
    [
        (lambda store: store.begin(), None),
        (lambda store: unfinished(store, 10), None),
        (unfinished, None),
        (unfinished, "tensor_file.write_all"),
        (finished, "log.DiskTokenLog.sync"),
        (synced, None),
        (finished, "index.Index.set_head"),
    ],
    ids=["begun", "appended", "rolled-over", "while-writing", "before-sync", "synced", "in-transaction"],
)
def test_kill_inside_a_turn(home: DiskHome, body: Body, at: str | None) -> None:
    """A turn that was not acknowledged is not there; the one before it is whole."""
    store = create(home)
    add_turn(store, 1, 40, blocks=2)
    store.close()
    killed(home, body, at)

    check(home, (1, 40))


def elsewhere(store: DiskStore) -> None:
    """Write a turn that goes on from the first one, over the digests of the others."""
    store.begin("state-1")
    store.log.append(*kv(9, 200))
    store.digests.append(digests(9, 9))


def elsewhere_synced(store: DiskStore) -> None:
    """The same, with its bytes on the medium."""
    elsewhere(store)
    store.log.sync()


def elsewhere_finished(store: DiskStore) -> None:
    """The same, and commit it."""
    elsewhere(store)
    store.commit(new_turn(9, 200))


@pytest.mark.parametrize(
    ("body", "at"),
    [
        (lambda store: store.begin("state-1"), None),
        (lambda store: store.begin("state-1"), "slot_rows.SlotRows.set_digests"),
        (lambda store: store.begin(None), None),
        (elsewhere, None),
        (elsewhere, "tensor_file.write_all"),
        (elsewhere_synced, None),
        (elsewhere_finished, "index.Index.set_head"),
    ],
    ids=[
        "begun",
        "dropping-digests",
        "from-nothing",
        "appended",
        "while-writing",
        "synced",
        "in-transaction",
    ],
)
def test_kill_inside_a_turn_elsewhere(home: DiskHome, body: Body, at: str | None) -> None:
    """Killed in a turn after an earlier state: the head is where it was, and nothing of its branch is harmed."""
    store = create(home)
    for seed in (1, 2, 3):
        add_turn(store, seed, 50, blocks=3)
    store.close()
    killed(home, body, at)

    store = home.open("ada")
    found = torch.cat([torch.empty(2, 0, 4), *store.digests.parts(0)], dim=1)
    wanted = torch.cat([digests(seed, 3)[0] for seed in (1, 2, 3)], dim=1)
    assert torch.equal(found, wanted[:, : store.digests.count])
    store.close()
    check(home, (1, 50), (2, 50), (3, 50))


def test_failed_sync_elsewhere(home: DiskHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn after an earlier state that cannot be synced leaves the head, here and when opened again."""
    store = create(home)
    for seed in (1, 2, 3):
        add_turn(store, seed, 50, blocks=3)

    def failing(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("agentmem.store.log.sync_file", failing)
    with pytest.raises(StoreError, match="Input/output"):
        elsewhere_finished(store)
    monkeypatch.undo()
    store.abort()
    assert same(contents(store.log), expected((1, 50), (2, 50), (3, 50)))
    assert [turn.state_id for turn in store.turns()] == ["state-1", "state-2", "state-3"]
    store.close()

    check(home, (1, 50), (2, 50), (3, 50))


def test_kill_between_turns(home: DiskHome) -> None:
    """Acknowledged turns survive a kill without a close."""
    create(home).close()
    killed(home, lambda store: [add_turn(store, seed, 50, blocks=3) for seed in (1, 2, 3)])

    store = home.open("ada")
    assert store.digests.count == 9
    store.close()
    check(home, (1, 50), (2, 50), (3, 50))


@pytest.mark.parametrize(
    "fault",
    [
        "forgetting.scrub",
        "tensor_file.TensorWriter.write_zeros",
        "segment.SegmentSet.drop",
        "index.Index.compact",
    ],
)
def test_kill_while_forgetting(home: DiskHome, fault: str) -> None:
    """What was being forgotten when the writer was killed is finished at the next opening."""
    store = create(home)
    for seed in (1, 2, 3):
        add_turn(store, seed, 50, blocks=2)
    store.close()
    killed(home, lambda store: store.forget([2]), fault)

    store = home.open("ada")
    assert same(contents(store.log), expected((1, 50), (-2, 50), (3, 50)))
    assert list(store.log.dead) == [(50, 100)]
    assert store.verify(deep=True).ok
    store.close()


def test_kill_before_anything_is_forgotten(home: DiskHome) -> None:
    """Killed before the index was changed, nothing was forgotten."""
    store = create(home)
    add_turn(store, 1, 50)
    store.close()
    killed(home, lambda store: store.forget([1]), "slot_rows.SlotRows.add_scrubs")

    check(home, (1, 50))


def test_kill_while_collecting(home: DiskHome) -> None:
    """A kill between the index's change and the files' leaves nothing but work for later."""
    store = create(home)
    add_turn(store, 1, 40)
    add_turn(store, 2, 200)
    store.rewind("state-1")
    store.close()
    killed(home, lambda store: store.collect(prune=True), "index.Index.compact")

    check(home, (1, 40))


def test_failed_sync_refuses_further_commits(home: DiskHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed fdatasync nothing more is committed until the agent is opened again."""
    store = create(home)
    add_turn(store, 1, 10)

    def failing(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("agentmem.store.log.sync_file", failing)
    store.begin()
    store.log.append(*kv(2, 10))
    with pytest.raises(StoreError, match="Input/output"):
        store.commit(new_turn(2, 10))
    monkeypatch.undo()
    with pytest.raises(StoreError, match="open it again"):
        store.commit(new_turn(2, 10))
    store.abort()
    with pytest.raises(StoreError, match="open it again"):
        store.note("a", 1)
    store.close()

    check(home, (1, 10))


def test_full_disk_leaves_the_turn_as_it_was(home: DiskHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """An append that the disk refuses adds no token, and can be repeated when there is room."""
    store = create(home)
    store.begin()
    store.log.append(*kv(1, 10))

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorWriter, "write", full)
    with pytest.raises(StoreError, match="No space"):
        store.log.append(*kv(2, 5))
    monkeypatch.undo()
    assert store.log.length == 10
    store.log.append(*kv(2, 5))
    store.commit(new_turn(1, 15))

    assert same(contents(store.log), expected((1, 10), (2, 5)))
    store.close()


def test_full_disk_while_forgetting(home: DiskHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk would not overwrite is forgotten all the same, and overwritten at the next opening."""
    store = create(home)
    for seed in (1, 2, 3):
        add_turn(store, seed, 50, blocks=2)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorWriter, "write_zeros", full)
    with pytest.raises(StoreError, match="No space"):
        store.forget([2])
    monkeypatch.undo()
    assert list(store.log.dead) == [(50, 100)]
    store.close()
    store = home.open("ada")

    assert same(contents(store.log), expected((1, 50), (-2, 50), (3, 50)))
    assert store.verify(deep=True).ok
    store.close()


def test_short_writes_are_finished(home: DiskHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that the system does in part is carried on to its end."""
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, bytes(data)[:7], offset))
    store = create(home)
    add_turn(store, 1, 40)
    monkeypatch.undo()
    store.close()

    check(home, (1, 40))


def test_garbage_collected_store_lets_go(home: DiskHome) -> None:
    """A writer that is closed twice, or aborted after closing, does no harm."""
    store = create(home)
    store.begin()
    store.close()
    store.abort()
    store.close()

    assert isinstance(home.open("ada"), DiskStore)

"""A rebuild that is killed, or that the disk fails: the old state, or the new one whole; and older indexes."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmem.errors import DamagedError, StateForgottenError, StoreError
from agentmem.store import DiskHome, DiskStore
from agentmem.store.tensor_file import TensorWriter
from agentmem.store.upkeep import Reason, Rewritten, TurnMarks
from support.killing import killed
from support.old_index import make_older, versions
from support.stores import DIGEST_BLOCKS, SEGMENT_TOKENS, add_turn, contents, create, expected, kv, same

WHY = Reason("rebuild", "match", "2026-01-02T03:04:05+00:00")
OLD = expected((1, 50), (2, 50), (3, 50), (4, 20))
NEW = expected((1, 50), (13, 60), (14, 20))


@pytest.fixture
def home(tmp_path: Path) -> DiskHome:
    """A home with an agent of four turns, closed."""
    home = DiskHome(tmp_path, segment_tokens=SEGMENT_TOKENS, digest_blocks=DIGEST_BLOCKS)
    store = create(home)
    store.digests.select("mean:8")
    for seed, count in ((1, 50), (2, 50), (3, 50), (4, 20)):
        add_turn(store, seed, count, blocks=count // 10)
    store.close()
    return home


def rebuild(store: DiskStore) -> None:
    """Without the second turn."""
    store.upkeep.begin_rebuild([2])
    for turn, seed, count in ((3, 13, 60), (4, 14, 20)):
        store.upkeep.stand_before(turn)
        store.log.append(*kv(seed, count))
        store.upkeep.stage(Rewritten(turn, f"again-{seed}", [seed] * count, {}, {}))
    store.upkeep.commit_rebuild(WHY)


@pytest.mark.parametrize(
    ("at", "done"),
    [
        ("rebuilding.Rebuild.stage", False),
        ("rebuilding.Rebuild.commit", False),
        ("log.DiskTokenLog.pages_of", False),
        ("turn_rows.TurnRows.rewrite", False),
        ("upkeep_rows.UpkeepRows.move_states", False),
        ("upkeep_rows.UpkeepRows.add_audit", False),
        ("slot_rows.SlotRows.add_scrubs", False),
        ("forgetting.scrub", True),
        ("tensor_file.TensorWriter.write_zeros", True),
        ("tensor_file.TensorWriter.free", True),
        ("slot_rows.SlotRows.clear_scrubs", True),
        ("index.Index.compact", True),
        ("rebuilding.trim", True),
    ],
)
def test_a_kill_leaves_the_old_state_or_the_new_one(home: DiskHome, at: str, done: bool) -> None:
    """Before the commit nothing has changed; after it all has, and the next opening finishes the erasing."""
    killed(home, rebuild, at)
    store = home.open("ada")
    assert same(contents(store.log), NEW if done else OLD)
    assert [turn.id for turn in store.turns()] == ([1, 3, 4] if done else [1, 2, 3, 4])
    assert store.find_state("state-3").state_id == ("again-13" if done else "state-3")
    assert len(store.upkeep.audit()) == done
    assert not store.upkeep.erasure_due
    assert store.verify(deep=True).ok
    if not done:
        rebuild(store)
    old = kv(3, 50)[0][0][0, 40].numpy().tobytes()
    assert not [path for path in home.home.rglob("*") if path.is_file() and old in path.read_bytes()]
    add_turn(store, 7, 90)
    store.close()
    store = home.open("ada")
    assert same(contents(store.log), expected((1, 50), (13, 60), (14, 20), (7, 90)))
    assert store.collect().turns == 0 and store.verify(deep=True).ok
    assert same(contents(store.log), expected((1, 50), (13, 60), (14, 20), (7, 90)))
    store.close()


def full(*_: object) -> None:
    """What a full disk says."""
    raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_the_old_state(home: DiskHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """While turns are written, and at the sync; after an abort the agent goes on, or says how to."""
    store = home.open("ada")
    monkeypatch.setattr(TensorWriter, "write", full)
    with pytest.raises(StoreError, match="No space"):
        rebuild(store)
    monkeypatch.undo()
    store.abort()
    assert same(contents(store.log), OLD)
    monkeypatch.setattr("agentmem.store.log.sync_file", full)
    with pytest.raises(StoreError, match="No space"):
        rebuild(store)
    monkeypatch.undo()
    store.close()
    store = home.open("ada")
    assert same(contents(store.log), OLD) and store.verify(deep=True).ok
    store.close()


def test_what_the_disk_would_not_overwrite_is_overwritten_later(
    home: DiskHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rebuild is committed; new turns never go where zeros are still to be written."""
    store = home.open("ada")
    monkeypatch.setattr(TensorWriter, "write_zeros", full)
    with pytest.raises(StoreError, match="No space"):
        rebuild(store)
    assert same(contents(store.log), NEW)
    for again in (lambda: store.forget([4]), lambda: store.upkeep.begin_rebuild([1, 3, 4])):
        with pytest.raises(StoreError, match="No space"):
            again()
    add_turn(store, 8, 70)
    monkeypatch.undo()
    store.close()
    store = home.open("ada")
    wanted = expected((1, 50), (13, 60), (14, 20), (8, 70))
    assert same(contents(store.log), wanted) and store.verify(deep=True).ok
    store.upkeep.begin_rebuild([1, 3, 4, 5])
    monkeypatch.setattr(TensorWriter, "write_zeros", full)
    with pytest.raises(StoreError, match="No space"):
        store.upkeep.commit_rebuild(WHY)
    assert store.log.length == 0
    add_turn(store, 9, 70)
    monkeypatch.undo()
    store.close()
    store = home.open("ada")
    assert same(contents(store.log), expected((9, 70))) and store.verify(deep=True).ok
    store.close()


def test_a_fork_keeps_its_files(home: DiskHome) -> None:
    """Segments shared with it are left or copied, never emptied."""
    home.fork("ada", "bob")
    store = home.open("ada")
    rebuild(store)
    assert same(contents(store.log), NEW) and store.verify(deep=True).ok
    bob = home.open("bob")
    assert same(contents(bob.log), OLD) and bob.verify(deep=True).ok
    bob.upkeep.begin_rebuild([1, 2, 3, 4])
    bob.upkeep.commit_rebuild(WHY)
    assert bob.log.length == 0
    assert same(contents(store.log), NEW) and store.verify(deep=True).ok
    assert {path.name for path in (home.home / "agents").glob("*/kv/*") if path.stat().st_nlink > 1} == set()
    bob.close()
    store.close()


@pytest.mark.parametrize("at", ["forgetting.scrub", "rebuilding.trim"])
def test_a_kill_beside_a_fork(home: DiskHome, at: str) -> None:
    """What only the fork needs now is left to it, and is not missed."""
    home.fork("ada", "bob")
    killed(
        home, lambda store: (store.upkeep.begin_rebuild([1, 2, 3, 4]), store.upkeep.commit_rebuild(WHY)), at
    )
    for name, wanted in (("ada", None), ("bob", OLD)):
        store = home.open(name)
        assert store.log.length == 0 if wanted is None else same(contents(store.log), wanted)
        assert store.verify(deep=True).ok
        store.close()


def test_damage_beside_what_goes_stops_it(home: DiskHome) -> None:
    """A page that also holds tokens that stay is checked before it is written to: nothing has changed."""
    path = next((home.home / "agents").glob("*/kv/000000.safetensors"))
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 64 * 8 * 4 + 45 * 8 * 4)  # slot 45 of the last tensor: turn 1
        file.write(b"\xff" * 8)
    store = home.open("ada")
    with pytest.raises(DamagedError, match="000000"):
        rebuild(store)
    store.abort()
    assert [turn.id for turn in store.turns()] == [1, 2, 3, 4]
    assert store.find_state("state-2").id == 2
    store.close()


@pytest.mark.parametrize("before", versions()[1:])
def test_an_older_index_has_no_marks_and_gets_them(home: DiskHome, before: str) -> None:
    """Read-only it has none; a writer brings it up to date, pins, forgets, rebuilds and audits."""
    make_older(next((home.home / "agents").iterdir()) / "agent.db", before)
    reader = home.open("ada", read_only=True)
    assert (reader.upkeep.marks(), reader.upkeep.audit(), reader.upkeep.erasure_due) == ({}, [], False)
    assert reader.find_state("state-2").id == 2 and len(reader.every_turn()) == 4
    reader.close()
    store = home.open("ada")
    store.upkeep.pin(4, pinned=True)
    rebuild(store)
    assert store.upkeep.marks() == {4: TurnMarks(None, True)} and len(store.upkeep.audit()) == 1
    with pytest.raises(StateForgottenError):
        store.find_state("state-2")
    assert same(contents(store.log), NEW) and store.verify(deep=True).ok
    store.close()

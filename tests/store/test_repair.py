"""Repair of damaged K/V: what was committed comes back bit for bit, or is set aside; never anything else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from torch import Tensor

from agentmem.errors import DamagedError, StoreError
from agentmem.memory.source import DigestLog, TokenLog
from agentmem.store import DiskHome, DiskStore, MemoryKey, Turn
from agentmem.store.mended import Encode
from agentmem.store.segment import segment_spec
from agentmem.store.turn_rows import TurnRows
from support.encoding import again, encode
from support.killing import killed
from support.stores import (
    DIGEST_BLOCKS,
    LAYOUT,
    SEGMENT_TOKENS,
    add_turn,
    contents,
    create,
    expected,
    kv,
    same,
)

SPEC = segment_spec(LAYOUT, SEGMENT_TOKENS)
WHOLE = expected((1, 100), (2, 50))


@pytest.fixture(params=["plain", "encrypted"])
def home(tmp_path: Path, request: pytest.FixtureRequest) -> DiskHome:
    """A home whose agent "ada" has 150 tokens in three segments, and five digests in two files."""
    key = MemoryKey.generate() if request.param == "encrypted" else None
    home = DiskHome(tmp_path, segment_tokens=SEGMENT_TOKENS, digest_blocks=DIGEST_BLOCKS, key=key)
    store = create(home)
    store.digests.select("mean")
    add_turn(store, 1, 100, blocks=5)
    add_turn(store, 2, 50)
    store.close()
    return home


def file_of(home: DiskHome, name: str, agent_id: str = "ada") -> Path:
    """A file of an agent."""
    return home._folder(agent_id) / name


def flip(path: Path, offset: int) -> None:
    """Change one bit of a file, in place."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 4]))


def otherwise(ids: Sequence[int], log: TokenLog, digests: DigestLog) -> None:
    """Append other K/V."""
    log.append(*kv(99, len(ids)))


def none(turn: Turn) -> Sequence[Encode]:
    """No way: the model is not there."""
    return ()


def opened(home: DiskHome) -> DiskStore:
    """The agent."""
    return home.open("ada")


def check_whole(home: DiskHome, wanted: list[Tensor] = WHOLE) -> None:
    """The agent verifies, holds what it held, and goes on."""
    store = opened(home)
    assert store.verify(deep=True).findings == []
    assert same(contents(store.log), wanted)
    assert list(store.log.dead) == []
    add_turn(store, 7, 70)
    store.close()
    store = opened(home)
    length = wanted[0].shape[1]
    assert same([tensor[:, :length] for tensor in contents(store.log)], wanted)
    assert store.verify(deep=True).ok
    store.close()


def harm_bit(home: DiskHome) -> None:
    """One bit of one key in the second segment."""
    flip(file_of(home, "kv/000001.safetensors"), SPEC.offset(0, 1, 5))


def harm_many(home: DiskHome) -> None:
    """A bit in each segment, the open page among them."""
    for number, tensor in ((0, 3), (1, 2), (2, 1)):
        flip(file_of(home, f"kv/{number:06d}.safetensors"), SPEC.offset(tensor, 0, 20))


def harm_missing(home: DiskHome) -> None:
    """The middle segment is gone."""
    file_of(home, "kv/000001.safetensors").unlink()


def harm_all(home: DiskHome) -> None:
    """All segments are gone."""
    for number in range(3):
        file_of(home, f"kv/{number:06d}.safetensors").unlink()


def harm_length(home: DiskHome) -> None:
    """The last segment is cut in its middle."""
    os.truncate(file_of(home, "kv/000002.safetensors"), SPEC.size // 2)


def harm_header(home: DiskHome) -> None:
    """A bit of a header."""
    flip(file_of(home, "kv/000000.safetensors"), 40)


Harm = Callable[[DiskHome], None]
HARMS: list[Harm] = [harm_bit, harm_many, harm_missing, harm_all, harm_length, harm_header]


@pytest.mark.parametrize("harm", HARMS)
def test_what_was_lost_comes_back_bit_for_bit(home: DiskHome, harm: Harm) -> None:
    """Computed anew the same way: proven by the checksums it was committed with; turns and head are as before."""
    harm(home)
    store = opened(home)
    before = store.turns()
    report = store.repair(again)

    assert report.found and report.ok
    assert {one.outcome for one in report.ranges} <= {"exact"}
    assert all(one.text_kept for one in report.ranges)
    assert same(contents(store.log), WHOLE)
    assert store.turns() == before
    assert not store.repair(again).found
    store.close()
    check_whole(home)


@pytest.mark.parametrize("harm", HARMS[:-1])
def test_without_a_model_it_is_set_aside_until_there_is_one(home: DiskHome, harm: Harm) -> None:
    """The tokens of damaged pages are dead and read as zeros, the others as ever; verify goes on telling of them."""
    harm(home)
    store = opened(home)
    report = store.repair(none)
    dead = list(store.log.dead)

    assert not report.ok
    assert sum(stop - start for start, stop in dead) == report.tokens("set aside") > 0
    found = contents(store.log)
    for tensor, wanted in zip(found, WHOLE, strict=True):
        kept = wanted.clone()
        for start, stop in dead:
            kept[:, start:stop] = 0
        assert same([tensor], [kept])
    assert not store.verify(deep=True).ok
    assert not any(turn.forgotten for turn in store.turns())
    add_turn(store, 3, 40)
    store.close()
    store = opened(home)
    assert list(store.log.dead) == dead
    healed = store.repair(again)
    assert healed.ok and healed.tokens("exact") == report.tokens("set aside")
    store.close()
    check_whole(home, expected((1, 100), (2, 50), (3, 40)))


def test_a_broken_header_needs_no_model(home: DiskHome) -> None:
    """Every page under it is whole: they are taken over into a new file."""
    harm_header(home)
    store = opened(home)
    report = store.repair(none)

    assert report.ok and report.ranges == [] and report.rebuilt_files == ["kv/000000.safetensors"]
    assert not file_of(home, "kv/000000.safetensors").exists()
    store.close()
    check_whole(home)


def test_what_was_set_aside_is_taken_back_when_its_bytes_are(home: DiskHome, tmp_path: Path) -> None:
    """A file restored from a backup: no model is needed."""
    path = file_of(home, "kv/000001.safetensors")
    shutil.copy(path, tmp_path / "backup")
    os.truncate(path, 10)
    store = opened(home)
    aside = store.repair(none).tokens("set aside")
    store.close()
    shutil.copy(tmp_path / "backup", path)
    store = opened(home)
    report = store.repair(none)

    assert report.ok and report.tokens("exact") == aside == (36 if home.key else 36 + 28)
    store.close()
    check_whole(home)


def test_only_damaged_pages_move(home: DiskHome) -> None:
    """Tokens of whole pages stay in the slots they had."""
    harm_bit(home)
    store = opened(home)
    before = {one for _, one in store._slots.all_extents()}
    (one,) = store.repair(again).ranges

    assert (one.turn, one.start, one.stop, one.file) == (1, 64, 96, "kv/000001.safetensors")
    moved = [extent for _, extent in store._slots.all_extents() if extent not in before]
    assert sum(extent.count for extent in moved if extent.segment >= 3) == 32
    store.close()


def test_the_way_that_gives_what_is_left_is_taken(home: DiskHome) -> None:
    """A way that disagrees with the turn's whole pages is passed over; if all do, the report does not say exact."""
    harm_bit(home)
    store = opened(home)
    assert store.repair(lambda _: (otherwise, encode)).tokens("exact") == 32
    store.close()
    check_whole(home)
    flip(file_of(home, "kv/000000.safetensors"), SPEC.offset(0, 0, 3))
    store = opened(home)
    report = store.repair(lambda _: (otherwise,))

    assert [(one.outcome, one.start, one.stop) for one in report.ranges] == [("encoded", 0, 32)]
    assert same([tensor[:, :32] for tensor in contents(store.log)], [t[:, :32] for t in expected((99, 100))])
    assert store.verify(deep=True).ok
    store.close()


def test_a_dry_run_changes_nothing(home: DiskHome) -> None:
    """It says what would become of it; also for a reader."""
    harm_many(home)
    store = opened(home)
    store.close()
    files = {path: path.read_bytes() for path in file_of(home, ".").rglob("*") if path.is_file()}
    reader = home.open("ada", read_only=True)
    planned = reader.repair(again, dry_run=True)
    hopeless = reader.repair(none, dry_run=True)
    reader.close()

    assert planned.dry_run and planned.ok and not hopeless.ok
    assert {one.outcome for one in planned.ranges} == {"encoded"}
    assert {path: path.read_bytes() for path in files} == files
    store = opened(home)
    done = store.repair(again)
    assert [(r.turn, r.start, r.stop) for r in done.ranges] == [
        (r.turn, r.start, r.stop) for r in planned.ranges
    ]
    store.close()


def test_forgotten_tokens_need_no_model(home: DiskHome) -> None:
    """They are zeros, and are zeros again."""
    store = opened(home)
    store.forget([2])
    store.close()
    harm_length(home)
    store = opened(home)

    assert store.repair(none).ok
    assert store.verify(deep=True).ok
    assert same(contents(store.log), expected((1, 100), (-2, 50)))
    store.close()


def test_other_branches_are_repaired_too(home: DiskHome) -> None:
    """Turns that the head does not stand on, and turns that stand on repaired ones."""
    store = opened(home)
    store.rewind("state-1")
    add_turn(store, 3, 60)
    store.close()
    harm_all(home)
    store = opened(home)
    assert store.repair(again).ok
    assert same(contents(store.log), expected((1, 100), (3, 60)))
    store.rewind("state-2")
    assert same(contents(store.log), WHOLE)
    store.close()


def test_a_fork_keeps_its_own_files(home: DiskHome) -> None:
    """A shared file is damaged for both; repairing one alters no byte of the other's."""
    home.fork("ada", "eve")
    harm_bit(home)
    shared = file_of(home, "kv/000001.safetensors", "eve").read_bytes()
    store = opened(home)
    store.repair(again)
    store.close()

    assert file_of(home, "kv/000001.safetensors", "eve").read_bytes() == shared
    check_whole(home)
    eve = home.open("eve")
    assert eve.repair(again).ok and eve.verify(deep=True).ok
    eve.close()


@pytest.mark.parametrize("number", [0, 1])
def test_damaged_digests_are_dropped(home: DiskHome, number: int) -> None:
    """They count as not there, and verify is content; keys are untouched."""
    (path,) = file_of(home, "digests").glob(f"{number:06d}*")
    flip(path, 20 if home.key else 4096 + 5)
    store = opened(home)
    report = store.repair(none)

    assert report.found and report.ok and report.digest_blocks > 0
    assert store.verify(deep=True).ok
    store.close()
    store = opened(home)
    assert store.digests.count == 5 - report.digest_blocks
    store.close()
    check_whole(home)


def test_a_full_disk_leaves_the_old_state(home: DiskHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """StoreError; what could be read before can be read still, and a later repair succeeds."""
    harm_bit(home)
    store = opened(home)
    before = [finding.where for finding in store.verify(deep=True).findings]
    head = store.head

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    write = "encrypted_pages.write_all" if home.key else "tensor_file.TensorWriter.write"
    for fault in (write, "segment.create_tensor_file"):
        with monkeypatch.context() as patch:
            patch.setattr(f"agentmem.store.{fault}", full)
            with pytest.raises(StoreError, match="No space"):
                store.repair(again)
    with monkeypatch.context() as patch:
        patch.setattr("agentmem.store.log.sync_file", full)
        with pytest.raises(StoreError, match="No space"):
            store.repair(again)
    assert [finding.where for finding in store.verify(deep=True).findings] == before
    assert store.head == head
    assert max(path.name for path in file_of(home, "kv").iterdir()) == "000002.safetensors"
    add_turn(store, 8, 3)
    with pytest.raises(DamagedError):
        contents(store.log)
    assert store.repair(again).ok
    store.close()
    check_whole(home, expected((1, 100), (2, 50), (8, 3)))


def test_what_the_disk_refuses_while_a_turn_is_computed_sets_nothing_aside(home: DiskHome) -> None:
    """It was sound a moment ago: the repair ends and changes nothing, or later turns would be computed on a hole."""
    harm_many(home)
    store = opened(home)
    before = [finding.where for finding in store.verify(deep=True).findings]
    tries: list[int] = []

    def failing(turn: Turn) -> Sequence[Encode]:
        def refused(ids: Sequence[int], log: TokenLog, digests: DigestLog) -> None:
            tries.append(turn.id)
            raise DamagedError("ada", "kv/000000.safetensors", "the whole file", "it cannot be opened")

        return (refused,)

    with pytest.raises(DamagedError, match="cannot be opened"):
        store.repair(failing)
    assert tries == [1]
    assert [finding.where for finding in store.verify(deep=True).findings] == before
    assert store.repair(again).tokens("set aside") == 0
    store.close()
    check_whole(home)


@pytest.mark.parametrize("reader", ["get", "ids_left"])
def test_a_disk_that_fails_once_loses_no_token_ids(
    home: DiskHome, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    """SQLite calls a failed read damage of the index; asked again, it is there."""
    harm_many(home)
    store = opened(home)
    real, failed = getattr(TurnRows, reader), set()

    def once(rows: TurnRows, turn_id: int) -> object:
        if turn_id not in failed:
            failed.add(turn_id)
            raise DamagedError("ada", "agent.db", "the index", "database disk image is malformed")
        return real(rows, turn_id)

    with monkeypatch.context() as patch:
        patch.setattr(TurnRows, reader, once)
        report = store.repair(again)
    assert failed >= {1, 2}
    assert report.ok and all(one.outcome == "exact" for one in report.ranges)
    store.close()
    check_whole(home)


def test_too_many_open_files_are_no_damage(home: DiskHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """StoreError: what could not be looked at is neither computed anew nor set aside; descriptors are given back."""
    store, real = opened(home), os.open

    def none_left(path: os.PathLike[str], flags: int, *rest: int, **options: int) -> int:
        if str(path).endswith("kv/000001.safetensors"):
            raise OSError(24, "Too many open files")
        return real(path, flags, *rest, **options)

    before = len(list(Path("/dev/fd").iterdir()))
    with monkeypatch.context() as patch:
        patch.setattr("agentmem.store.loose_segment.os.open", none_left)
        with pytest.raises(StoreError, match="Too many open files"):
            store.repair(none)
    assert len(list(Path("/dev/fd").iterdir())) == before
    assert not store.repair(none).found
    store.close()
    check_whole(home)


@pytest.mark.parametrize(
    "at",
    [
        "tensor_file.TensorWriter.write",
        "staging.Staging.keep",
        "mending.Mender.commit",
        "slot_rows.SlotRows.put_aside",
        "mending.remove_orphans",
    ],
)
@pytest.mark.parametrize("ways", [again, none])
def test_a_kill_leaves_the_old_state_or_the_new(home: DiskHome, at: str, ways: object) -> None:
    """Killed anywhere in a repair: the agent opens, and repairing it again succeeds."""
    harm_many(home)
    harm_missing(home)
    killed(home, lambda store: store.repair(ways), at)
    store = opened(home)

    assert [turn.state_id for turn in store.turns()] == ["state-1", "state-2"]
    store.repair(again)
    assert same(contents(store.log), WHOLE)
    store.close()
    check_whole(home)


def test_token_ids_that_are_gone_cannot_be_encoded(home: DiskHome) -> None:
    """Their tokens are set aside, and the report says that the text is gone; others are repaired."""
    harm_many(home)
    store = opened(home)
    with store._index.transaction():
        store._index.execute("DELETE FROM tokens WHERE turn = 1")
    report = store.repair(again)

    assert {(one.turn, one.outcome, one.text_kept) for one in report.ranges} == {
        (1, "set aside", False),
        (2, "exact", True),
    }
    store.close()


@pytest.mark.parametrize("harm", [harm_bit, harm_missing, harm_length])
def test_what_is_set_aside_is_kept_until_it_is_replaced(home: DiskHome, harm: Harm) -> None:
    """Collecting, pruning and forking go on beside it; neither they nor another repair without a model touch it."""
    harm(home)
    store = opened(home)
    store.repair(none)
    add_turn(store, 3, 70)
    store.rewind("state-2")
    aside, extents = store._slots.set_aside(), store._slots.all_extents()
    assert not store.repair(none).ok
    assert (store._slots.set_aside(), store._slots.all_extents()) == (aside, extents)
    store.collect(prune=True)
    store.collect()
    assert store._slots.set_aside() == aside
    store.close()
    home.fork("ada", "eve")
    for name in ("ada", "eve"):
        store = home.open(name)
        assert store.repair(again).ok
        assert same(contents(store.log), WHOLE)
        assert store.verify(deep=True).ok
        store.close()


def test_forgetting_what_was_set_aside(home: DiskHome) -> None:
    """The turn is forgotten as any other, its damaged bytes go, and nothing is left to repair."""
    harm_length(home)
    store = opened(home)
    store.repair(none)
    store.forget([2])
    store.repair(none)
    store.collect()

    assert store.verify(deep=True).ok
    assert not file_of(home, "kv/000002.safetensors").exists()
    assert [info.tokens for info in home.list()] == [150]
    store.close()


def test_a_repaired_turn_can_be_forgotten(home: DiskHome) -> None:
    """Its tokens lie in old and new slots; all of them become zeros, and the other turn stays."""
    harm_bit(home)
    store = opened(home)
    assert store.repair(again).tokens("exact") == 32
    store.forget([1])
    store.collect()
    store.close()
    store = opened(home)
    assert store.verify(deep=True).ok
    assert same(contents(store.log), expected((-1, 100), (2, 50)))
    store.close()


def test_a_rebuild_waits_for_the_repair(home: DiskHome) -> None:
    """Turns are not read again behind tokens that are set aside."""
    harm_bit(home)
    store = opened(home)
    store.repair(none)
    with pytest.raises(StoreError, match="repair"):
        store.upkeep.begin_rebuild([2])
    store.repair(again)
    store.upkeep.begin_rebuild([2])
    store.abort()
    store.close()


def test_verify_names_the_turns(home: DiskHome) -> None:
    """Findings of keys and values say whose they are."""
    harm_many(home)
    harm_missing(home)
    store = opened(home)

    assert [(one.file[3:9], list(one.turns)) for one in store.verify(deep=True).findings] == [
        ("000000", [1]),
        ("000001", [1] if home.key else [1, 2]),  # encrypted turns start on pages of their own
        ("000002", [2]),
    ]
    store.close()


def test_a_writer_is_needed(home: DiskHome) -> None:
    """A reader, and a turn that is open, are refused."""
    reader = home.open("ada", read_only=True)
    with pytest.raises(StoreError, match="read-only"):
        reader.repair(again)
    reader.close()
    store = opened(home)
    store.begin()
    with pytest.raises(StoreError, match="open"):
        store.repair(again)
    store.close()

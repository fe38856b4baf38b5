"""What lies in an agent's folder: valid safetensors, private modes, links between forks, no leftovers."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from agentmem.errors import ConfigError, StoreError
from agentmem.memory.source import KVLayout
from agentmem.store import DiskHome
from agentmem.store.files import folder_bytes
from agentmem.store.schema import APPLICATION_ID, FORMAT_VERSION, migrations, open_database
from support.stores import (
    DIGEST_BLOCKS,
    LAYOUT,
    SEGMENT_TOKENS,
    add_turn,
    contents,
    create,
    digests,
    expected,
    kv,
    same,
)


@pytest.fixture
def home(tmp_path: Path) -> DiskHome:
    """A home with tiny segments."""
    return DiskHome(tmp_path / "deep" / "home", segment_tokens=SEGMENT_TOKENS, digest_blocks=DIGEST_BLOCKS)


def folder(home: DiskHome, agent_id: str = "ada") -> Path:
    """An agent's folder."""
    return home._folder(agent_id)


def links(path: Path) -> int:
    """How many names a file has."""
    return path.stat().st_nlink


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_segments_are_safetensors(home: DiskHome, dtype: torch.dtype) -> None:
    """Any safetensors reader opens a segment, half filled and in the middle of a turn too."""
    layout = KVLayout(((2, 4), (1, 8)), dtype)
    store = create(home, layout=layout)
    add_turn(store, 1, 40)
    store.begin()
    store.log.append(*kv(2, 50, layout))
    store.digests.append(digests(1, 3, layout))

    found = load_file(folder(home) / "kv/000000.safetensors")
    assert set(found) == {f"layers.{i}.{part}" for i in range(2) for part in ("keys", "values")}
    keys, values = kv(1, 40, layout)
    for layer in range(2):
        assert torch.equal(found[f"layers.{layer}.keys"][:, :40], keys[layer])
        assert torch.equal(found[f"layers.{layer}.values"][:, :40], values[layer])
        assert found[f"layers.{layer}.keys"].shape[1] == SEGMENT_TOKENS
    with safe_open(folder(home) / "digests/000000.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("layers.1.digest")[:, :3], digests(1, 3, layout)[1])
    assert not (load_file(folder(home) / "kv/000001.safetensors")["layers.0.keys"][:, 26:] != 0).any()
    store.close()


def test_files_are_sparse(tmp_path: Path) -> None:
    """A segment of the usual size takes disk for its tokens, not for its capacity."""
    layout = KVLayout(((2, 64),) * 4, torch.bfloat16)
    home = DiskHome(tmp_path)
    store = create(home, layout=layout)
    add_turn(store, 1, 64)
    path = folder(home) / "kv/000000.safetensors"

    assert path.stat().st_size > 8192 * layout.bytes_per_token
    assert path.stat().st_blocks * 512 < 512 * layout.bytes_per_token
    assert home.list()[0].bytes < 2**20
    store.close()


def test_modes(home: DiskHome) -> None:
    """Only the owner can read anything, whatever the umask."""
    before = os.umask(0)
    try:
        store = create(home)
        add_turn(store, 1, 100, blocks=5)
        reader = home.open("ada", read_only=True)
        home.fork("ada", "bob")
        add_turn(home.open("bob"), 2, 5, blocks=1)
    finally:
        os.umask(before)
    reader.close()

    for path in (home.home / "agents").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    store.close()


def test_names_tell_nothing(home: DiskHome) -> None:
    """No part of an agent's id appears in the file system."""
    create(home, "secret-customer/../..").close()

    assert not [path for path in home.home.parent.rglob("*") if "secret" in str(path)]
    (made,) = (home.home / "agents").iterdir()
    assert len(made.name) == 64 and set(made.name) <= set("0123456789abcdef")


def test_fork_links_sealed_and_copies_open(home: DiskHome) -> None:
    """Sealed segments are one file with two names; the open one, and all digests, are copies."""
    store = create(home)
    add_turn(store, 1, 150, blocks=5)
    home.fork("ada", "bob")

    counts = {number: links(folder(home) / f"kv/{number:06d}.safetensors") for number in range(3)}
    assert counts == {0: 2, 1: 2, 2: 1}
    assert [links(path) for path in (folder(home, "bob") / "digests").iterdir()] == [1, 1]
    store.close()


def test_forget_in_a_fork_copies_first(home: DiskHome) -> None:
    """Overwriting a shared segment never reaches the other agent's file."""
    store = create(home)
    add_turn(store, 1, 70)
    add_turn(store, 2, 80)
    store.close()
    home.fork("ada", "bob")
    before = (folder(home) / "kv/000001.safetensors").read_bytes()
    bob = home.open("bob")
    bob.forget([2])

    assert (folder(home) / "kv/000001.safetensors").read_bytes() == before
    assert links(folder(home) / "kv/000000.safetensors") == 2
    assert links(folder(home) / "kv/000001.safetensors") == 1
    assert same(contents(bob.log), expected((1, 70), (-2, 80)))
    assert bob.verify(deep=True).ok
    bob.close()


def test_collect_leaves_shared_pages(home: DiskHome) -> None:
    """Freeing pages of a shared segment would empty the other agent's too: it is not done."""
    store = create(home)
    add_turn(store, 1, 10)
    add_turn(store, 2, 200)
    home.fork("ada", "bob")
    store.rewind("state-1")
    store.collect(prune=True)
    store.close()
    bob = home.open("bob")

    assert same(contents(bob.log), expected((1, 10), (2, 200)))
    assert bob.verify(deep=True).ok
    bob.close()


def test_never_appends_to_a_linked_file(home: DiskHome) -> None:
    """An open segment that somebody else links, such as a backup, is not written to any more."""
    store = create(home)
    add_turn(store, 1, 10)
    store.close()
    path = folder(home) / "kv/000000.safetensors"
    os.link(path, home.home / "backup")
    before = path.read_bytes()
    store = home.open("ada")
    add_turn(store, 2, 10)

    assert path.read_bytes() == before
    assert same(contents(store.log), expected((1, 10), (2, 10)))
    store.close()


def test_forgotten_text_leaves_the_disk(home: DiskHome) -> None:
    """After forgetting, neither words nor K/V nor digests of the turn are in any file."""
    store = create(home)
    secret = "xylophonequartz"
    for seed, text in ((1, "harmless"), (2, secret), (3, "later")):
        add_turn(store, seed, 50, blocks=3, messages=[{"role": "user", "content": text}], source=text, part=0)
    keys, values = kv(2, 50)
    needles = [secret.encode(), keys[0][0, 7].numpy().tobytes(), values[1][0, 33].numpy().tobytes()]
    needles += [digests(2, 3)[0][1, 1].numpy().tobytes()]

    def found() -> list[bytes]:
        files = [path.read_bytes() for path in folder(home).rglob("*") if path.is_file()]
        return [needle for needle in needles if any(needle in data for data in files)]

    assert found() == needles
    store.forget([2])
    assert found() == []
    store.close()
    assert found() == []


def test_collect_gives_space_back(tmp_path: Path) -> None:
    """Pruned and forgotten tokens stop taking disk; their files go when nothing is left in them."""
    layout = KVLayout(((2, 64),) * 4, torch.bfloat16)
    home = DiskHome(tmp_path, segment_tokens=512)
    store = create(home, layout=layout)
    add_turn(store, 1, 100)
    add_turn(store, 2, 1000)
    store.rewind("state-1")
    report = store.collect(prune=True)

    assert report.files == 2
    assert report.bytes >= 900 * layout.bytes_per_token
    assert [path.name for path in (folder(home) / "kv").iterdir()] == ["000000.safetensors"]
    add_turn(store, 3, 400)
    add_turn(store, 4, 50)
    before = folder_bytes(folder(home))
    store.forget([store.turns()[1].id])
    assert before - folder_bytes(folder(home)) >= 300 * layout.bytes_per_token
    store.collect()
    assert same(contents(store.log), expected((1, 100), (-3, 400), (4, 50), layout=layout))
    assert store.verify(deep=True).ok
    store.close()


def test_segment_numbers_are_never_used_twice(home: DiskHome) -> None:
    """A pruned segment's number does not come back, so nobody mistakes a new file for the old."""
    store = create(home)
    add_turn(store, 1, 10)
    add_turn(store, 2, 200)
    store.rewind("state-1")
    store.collect(prune=True)
    add_turn(store, 3, 100)
    names = {path.name for path in (folder(home) / "kv").iterdir()}
    store.close()

    assert names == {"000000.safetensors", "000004.safetensors", "000005.safetensors"}


def test_reading_counts_bytes(home: DiskHome) -> None:
    """A resumed agent that reads its history has read at least as many bytes."""
    store = create(home)
    add_turn(store, 1, 100, blocks=4)
    store.close()
    store = home.open("ada")
    assert store.bytes_read == 0
    contents(store.log)
    first = store.bytes_read
    assert first >= 2 * 100 * LAYOUT.bytes_per_token  # checked once, copied once
    contents(store.log)

    assert store.bytes_read == first + 100 * LAYOUT.bytes_per_token
    before = store.bytes_read
    assert store.digests.count == 4
    assert store.bytes_read - before == sum(h * d * 4 for h, d in LAYOUT.layers) * 4
    store.close()


def test_index_settings(home: DiskHome) -> None:
    """The index is strict, durable and guarded, and says whose file it is."""
    create(home).close()
    wanted = {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "trusted_schema": 0,
        "cell_size_check": 1,
        "mmap_size": 0,
        "secure_delete": 1,
        "application_id": APPLICATION_ID,
        "user_version": FORMAT_VERSION,
    }
    for read_only, checkpoint in ((True, 0), (False, 1000)):
        db = open_database(folder(home) / "agent.db", "ada", read_only=read_only)
        found = {name: db.execute(f"PRAGMA {name}").fetchone()[0] for name in wanted}
        assert found == wanted
        assert db.execute("PRAGMA wal_autocheckpoint").fetchone()[0] == checkpoint
        assert migrations.pending(db) == []
        tables = db.execute("PRAGMA table_list").fetchall()
        ours = {row[1] for row in tables if row[5]}
        assert {"identity", "turns", "tokens", "extents", "pages", "notes"} <= ours
        db.close()


def test_search_without_full_text_index(home: DiskHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an SQLite that lacks FTS5 searching finds the same turns."""
    monkeypatch.setattr("agentmem.store.schema.has_fts5", lambda _: False)
    store = create(home)
    add_turn(store, 1, 1, messages=[{"role": "user", "content": "My dog Biscuit"}])
    add_turn(store, 2, 1, messages=[{"role": "user", "content": "another dog"}])
    store.forget([add_turn(store, 3, 1, messages=[{"role": "user", "content": "a third dog"}]).id])

    assert [turn.state_id for turn in store.search("DOG")] == ["state-2", "state-1"]
    assert [turn.state_id for turn in store.search("dog bisc")] == ["state-1"]
    store.close()


def test_killed_creation_is_swept(home: DiskHome) -> None:
    """What a killed process left while making an agent is removed later; live ones are not."""
    create(home).close()
    left = home.home / "agents" / ".new-0123"
    (left / "kv").mkdir(parents=True)
    os.utime(left, (0, 0))
    young = home.home / "agents" / ".new-4567"
    young.mkdir()
    create(home, "bob").close()

    assert not left.exists() and young.exists()
    assert {info.agent_id for info in home.list()} == {"ada", "bob"}


def test_failed_creation_leaves_nothing(home: DiskHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while an agent is made or forked leaves no trace and the name free."""

    def failing(path: Path) -> None:
        raise OSError(28, "No space left on device")

    create(home).close()
    monkeypatch.setattr("agentmem.store.birth.sync_folder", failing)
    with pytest.raises(StoreError, match=r"bob.*No space"):
        create(home, "bob")
    with pytest.raises(StoreError, match=r"bob.*No space"):
        home.fork("ada", "bob")
    monkeypatch.undo()

    assert [path.name for path in (home.home / "agents").iterdir()] == [folder(home).name]
    create(home, "bob").close()


@pytest.mark.parametrize("options", [{"segment_tokens": 33}, {"segment_tokens": 0}, {"digest_blocks": 0}])
def test_wrong_sizes(tmp_path: Path, options: dict[str, int]) -> None:
    """A segment is a whole number of pages."""
    with pytest.raises(ConfigError):
        DiskHome(tmp_path, **options)


def test_unstorable_dtype(home: DiskHome) -> None:
    """K/V of a dtype that cannot be stored are refused, and no agent is left."""
    with pytest.raises(ConfigError, match="float64"):
        create(home, layout=KVLayout(((1, 2),), torch.float64))
    assert home.list() == []


def test_reading_where_nothing_can_be_written(home: DiskHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy on read-only media can be read."""
    store = create(home)
    add_turn(store, 1, 10)
    store.close()
    before = sorted(path.name for path in folder(home).iterdir())
    monkeypatch.setattr("agentmem.store.schema.os.access", lambda *_: False)
    reader = home.open("ada", read_only=True)

    assert same(contents(reader.log), expected((1, 10)))
    assert sorted(path.name for path in folder(home).iterdir()) == before  # no -shm, no -wal
    reader.close()

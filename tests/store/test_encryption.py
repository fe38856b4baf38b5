"""Encrypted agents: nothing plain on disk, no byte that can be changed unnoticed, no way in without the key."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from agentmem.errors import (
    AgentMemError,
    DamagedError,
    InputError,
    KeyNeededError,
    StoreError,
    WrongKeyError,
)
from agentmem.store import DiskHome, MemoryKey
from agentmem.store.base import Store
from agentmem.store.pages import PAGE_SLOTS
from support.stores import add_turn, contents, create, digests, expected, kv, same

SECRET = "zanzibar"
KEY = MemoryKey.generate()


@pytest.fixture
def home(tmp_path: Path) -> DiskHome:
    """A home whose agent "ada" has three turns over two segments, digests, a note, and a forgotten turn."""
    home = DiskHome(tmp_path / "home", segment_tokens=64, digest_blocks=4, key=KEY)
    store = create(home)
    store.digests.select("mean")
    for seed, count in ((1, 40), (2, 50), (3, 7)):
        told = [{"role": "user", "content": f"The secret is {SECRET} {seed}"}]
        add_turn(store, seed, count, blocks=3, messages=told, source=f"{SECRET}.txt", trust=SECRET)
    store.note(SECRET, {"what": SECRET})
    store.close()
    return home


def folder(home: DiskHome) -> Path:
    """The agent's folder."""
    return next(path for path in (home.home / "agents").iterdir() if not path.name.startswith("."))


def files(home: DiskHome) -> Iterator[Path]:
    """Every file below the home."""
    return (path for path in sorted(home.home.rglob("*")) if path.is_file())


def whole(store: Store) -> bool:
    """Whether everything is there as it was written."""
    return (
        same(contents(store.log), expected((1, 40), (2, 50), (3, 7)))
        and [turn.messages[0]["content"] for turn in store.turns()]
        == [f"The secret is {SECRET} {seed}" for seed in (1, 2, 3)]
        and store.token_ids(40, 42) == [2000, 2001]
        and store.noted(SECRET) == {"what": SECRET}
    )


def test_everything_comes_back(home: DiskHome) -> None:
    """Texts, ids, K/V, digests, notes and words: from a new opening, to read or to write."""
    for read_only in (True, False):
        store = home.open("ada", read_only=read_only)
        assert whole(store)
        assert store.digests.count == 9
        assert len(store.search(SECRET)) == 3
        assert store.verify(deep=True).ok
        store.close()


def test_nothing_plain_is_on_disk(home: DiskHome) -> None:
    """No text, source, label, token id, key or value is in any file, while it is open or after it was closed."""
    store = home.open("ada")
    add_turn(store, 4, 33, messages=[{"role": "user", "content": SECRET}])
    keys, values = kv(1, 40)
    rows = [tensor[0, slot].numpy().tobytes() for tensor in (*keys, *values) for slot in (0, 33)]
    rows += [row[0, 0].numpy().tobytes() for row in digests(1, 3)]
    ids = np.arange(1000, 1008, dtype="<i4").tobytes()
    wanted = [SECRET.encode(), SECRET.encode("utf-16-le"), ids, b"state-1", *rows]
    for _ in ("open", "closed"):
        for path in files(home):
            data = path.read_bytes()
            assert [one for one in wanted if one in data] == [], path.name
        store.close()


def test_without_the_key_there_is_no_way_in(home: DiskHome) -> None:
    """No key, another key, words: typed errors; the list still shows the name, and nothing has changed."""
    before = {path: path.read_bytes() for path in files(home) if path.name not in ("lock", "agent.mark")}
    plain = DiskHome(home.home)
    with pytest.raises(KeyNeededError, match="encrypted"):
        plain.open("ada")
    for key in (MemoryKey.generate(), MemoryKey.from_passphrase("open sesame")):
        with pytest.raises(WrongKeyError):
            home.with_key(key).open("ada")
        with pytest.raises(WrongKeyError):
            home.with_key(key).fork("ada", "eve")
    assert [info.agent_id for info in plain.list()] == ["ada"]
    assert plain.list()[0].turns == 0
    assert home.list()[0].turns == 3
    assert {path: path.read_bytes() for path in before} == before
    create(plain, "bob").close()
    with pytest.raises(KeyNeededError, match="not encrypted"):
        home.open("bob")


def test_words_can_be_the_key(tmp_path: Path) -> None:
    """A passphrase opens what it closed, from a new object too; other words do not."""
    home = DiskHome(tmp_path, key=MemoryKey.from_passphrase("open sesame"))
    add_turn(create(home), 1, 5)
    with pytest.raises(WrongKeyError):
        home.with_key(MemoryKey.from_passphrase("open says me")).open("ada", read_only=True)
    store = home.with_key(MemoryKey.from_passphrase("open sesame")).open("ada", read_only=True)
    assert len(store.turns()) == 1
    with pytest.raises(InputError, match="empty"):
        MemoryKey.from_passphrase("")


def test_the_key_can_be_changed(home: DiskHome) -> None:
    """From then on the new one opens it and the old one does not; nothing else is written."""
    new = MemoryKey.from_passphrase("open sesame")
    before = {path: path.read_bytes() for path in files(home) if path.suffix in (".enc", ".safetensors")}
    home.change_key("ada", new)
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(WrongKeyError):
        home.open("ada")
    with pytest.raises(WrongKeyError):
        home.change_key("ada", KEY)
    store = home.with_key(new).open("ada")
    assert whole(store)
    assert [path.name for path in folder(home).iterdir() if path.name.startswith("key")] == ["key"]


def test_without_its_key_file_an_agent_is_unreadable(home: DiskHome) -> None:
    """Deleting a few bytes is deleting it all, for the holder of the user's key too."""
    (folder(home) / "key").unlink()
    with pytest.raises(DamagedError, match="key"):
        home.open("ada")
    home.delete("ada")
    assert home.list() == []


def test_a_key_is_kept_in_a_file_of_its_owner(tmp_path: Path, home: DiskHome) -> None:
    """Written once, 0600, read back; what is no key is refused."""
    path = KEY.save(tmp_path / "my.key")
    assert path.stat().st_mode & 0o777 == 0o600
    assert whole(home.with_key(MemoryKey.read(path)).open("ada", read_only=True))
    assert "secret" not in repr(KEY).lower()
    with pytest.raises(InputError):
        KEY.save(path)
    (tmp_path / "other").write_text("hello")
    for name in ("other", "none"):
        with pytest.raises(InputError):
            MemoryKey.read(tmp_path / name)


def test_a_fork_is_under_the_same_key_and_goes_its_own_way(home: DiskHome) -> None:
    """Shared files serve both; each outlives the other's end, and has its own wrapped key."""
    home.fork("ada", "eve")
    eve = home.open("eve")
    assert whole(eve)
    add_turn(eve, 5, 20)
    eve.close()
    ada = home.open("ada")
    assert whole(ada)
    ada.close()
    new = MemoryKey.generate()
    home.change_key("eve", new)
    home.delete("ada")
    eve = home.with_key(new).open("eve")
    assert same(contents(eve.log), expected((1, 40), (2, 50), (3, 7), (5, 20)))
    assert eve.verify(deep=True).ok


def test_forgotten_turns_are_gone_and_the_others_stay(home: DiskHome) -> None:
    """Zeros where it was, its tags gone from the index; what is written later does not meet them."""
    store = home.open("ada")
    store.forget([2])
    add_turn(store, 6, 45)
    assert same(contents(store.log), expected((1, 40), (-2, 50), (3, 7), (6, 45)))
    store.close()
    store = home.open("ada")
    assert same(contents(store.log), expected((1, 40), (-2, 50), (3, 7), (6, 45)))
    assert store.verify(deep=True).ok


def test_every_changed_byte_is_noticed(home: DiskHome) -> None:
    """A bit flipped anywhere in the files: right answers or a typed error, never another answer."""
    original = folder(home)
    noticed = tried = 0
    for path in [path for path in files(home) if path.name not in ("lock", "agent.mark")]:
        data = path.read_bytes()
        step = max(1, len(data) // 40)
        for place in range(0, len(data), step):
            changed = bytearray(data)
            changed[place] ^= 1 << place % 8
            path.write_bytes(changed)
            tried += 1
            try:
                store = home.open("ada", read_only=True)
                assert whole(store)
                store.close()
            except AgentMemError:
                noticed += 1
        path.write_bytes(data)
    assert noticed > 0 < tried
    assert whole(home.open("ada", read_only=True)), original


def test_bytes_cannot_be_moved_or_put_back(home: DiskHome, tmp_path: Path) -> None:
    """Pages swapped, the whole index of an older day in the place of the newer: noticed; forgotten pages stay shut."""
    old = tmp_path / "old"
    shutil.copytree(folder(home), old)
    segment = folder(home) / "kv" / "000000.safetensors"
    data = bytearray(segment.read_bytes())
    rows, start = 4 * 4 * 32, len(data) - 8 * 4 * 64
    data[start : start + rows], data[start + rows : start + 2 * rows] = (
        data[start + rows : start + 2 * rows],
        data[start : start + rows],
    )
    segment.write_bytes(data)
    with pytest.raises(DamagedError, match="kv/000000"):
        contents(home.open("ada", read_only=True).log)
    shutil.copy(old / "kv" / "000000.safetensors", segment)

    store = home.open("ada")
    store.forget([1])
    left = contents(store.log)
    store.close()
    shutil.copy(old / "kv" / "000000.safetensors", segment)
    store = home.open("ada", read_only=True)
    assert same(contents(store.log), left), "nonces and tags went with the turn"
    assert not any(tensor[:, :40].any() for tensor in left)
    store.close()
    shutil.copy(old / "agent.enc", folder(home) / "agent.enc")
    with pytest.raises(DamagedError, match="acknowledged"):
        home.open("ada", read_only=True)


@pytest.mark.parametrize("cut", [1, 17, 400])
def test_a_commit_that_was_cut_short_did_not_happen(home: DiskHome, cut: int) -> None:
    """A torn last record of which nobody was told: the state before it, and writing goes on."""
    path = folder(home) / "agent.enc"
    before = path.stat().st_size
    store = home.open("ada")
    add_turn(store, 7, 5)
    mark = (folder(home) / "agent.mark").read_bytes()
    store.close()
    os.truncate(path, path.stat().st_size - cut)
    assert path.stat().st_size > before
    with pytest.raises(DamagedError, match="acknowledged"):
        home.open("ada")
    (folder(home) / "agent.mark").unlink()
    assert mark
    store = home.open("ada")
    assert whole(store)
    add_turn(store, 8, 6)
    store.close()
    assert len(home.open("ada", read_only=True).turns()) == 4


@pytest.mark.parametrize("behind", [0, 1, 13, 16])
@pytest.mark.parametrize("slot", [0, 5])
def test_what_is_left_of_a_segment_that_was_cut_off(home: DiskHome, slot: int, behind: int) -> None:
    """Anywhere, in the middle of a row too: columns are whole or missing, and each missing one is named."""
    store = home.open("ada")
    path, before = store._segments.path(0), store._segments.loose(0)
    pages = sorted(before._pages)
    there = {
        (*column, page): before.rows(*column, page * PAGE_SLOTS, (page + 1) * PAGE_SLOTS)
        for column in before.columns
        for page in pages
    }
    spec = store._segments.spec
    os.truncate(path, spec.offset(len(spec.shapes) - 1, 0, slot) + behind)
    loose = store._segments.loose(0)

    assert not loose.rows(len(spec.shapes) - 1, 0, 0, PAGE_SLOTS)
    for (tensor, head, page), rows in there.items():
        left = loose.rows(tensor, head, page * PAGE_SLOTS, (page + 1) * PAGE_SLOTS)
        assert left in (rows, b"")
        assert bool(left) != ((tensor, head) in loose.wrong_columns(loose._pages[page]))
    for opened in (before, loose, store):
        opened.close()


def test_readers_follow_the_writer(home: DiskHome) -> None:
    """A reader that was opened before sees each turn after its commit, whole; nothing it does is written."""
    reader, writer = home.open("ada", read_only=True), home.open("ada")
    add_turn(writer, 4, 10)
    assert len(reader.turns(at="state-4")) == 4
    writer.forget([4])
    with pytest.raises(StoreError):
        reader.turns(at="state-4")
    with pytest.raises(StoreError):
        reader.note("a", 1)


def test_a_log_is_made_a_snapshot(home: DiskHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it has grown, at closing: smaller, the same content, and an open reader goes on with it."""
    monkeypatch.setattr("agentmem.store.encrypted_index._REWRITE_BYTES", 1)
    store = home.open("ada")
    reader = home.open("ada", read_only=True)
    for number in range(100):
        store.note("n", f"{'x' * 5000}{number}")
    before = (folder(home) / "agent.enc").stat().st_size
    store.close()
    assert (folder(home) / "agent.enc").stat().st_size < before
    assert reader.noted("n").endswith("x99")
    assert home.open("ada").noted("n").endswith("x99")


def test_decrypted_pages_are_let_go(home: DiskHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the budget they are decrypted again when they are read; an open turn's are kept."""
    monkeypatch.setattr("agentmem.store.encrypted_segments.HELD_BYTES", 100)
    store = home.open("ada")
    assert whole(store)
    store.begin()
    store.log.append(*kv(4, 9))
    for _ in range(2):
        assert same(contents(store.log), expected((1, 40), (2, 50), (3, 7), (4, 9)))
    store.abort()
    assert whole(store)


def test_digests_of_a_long_history_are_decrypted_when_they_are_asked_for(
    home: DiskHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the budget they are not kept, and are what was written through appends, truncations, aborts and openings."""
    monkeypatch.setattr("agentmem.store.encrypted_digests.HELD_BYTES", 1)
    wanted = [
        torch.cat(parts, dim=1) for parts in zip(*(digests(seed, 3) for seed in (1, 2, 3)), strict=True)
    ]

    def held(store: Store) -> bool:
        layers = range(len(store.identity.layout.layers))
        return same([torch.cat([*store.digests.parts(layer)], dim=1) for layer in layers], wanted)

    store = home.open("ada")
    assert store.digests.count == 9 and held(store)
    for seed, kept in ((4, 9), (5, 10), (6, 6), (7, 2)):
        store.begin()
        store.log.append(*kv(seed, 6))
        store.digests.truncate(kept)
        store.digests.append(digests(seed, 7))
        before = wanted
        wanted = [
            torch.cat((old[:, :kept], new), dim=1) for old, new in zip(wanted, digests(seed, 7), strict=True)
        ]
        assert held(store)
        store.abort()
        wanted = [tensor[:, :kept] for tensor in before]
        assert store.digests.count == kept and held(store)
        add_turn(store, seed, 6, blocks=7)
        wanted = [torch.cat((old, new), dim=1) for old, new in zip(wanted, digests(seed, 7), strict=True)]
        assert held(store)
        store.close()
        store = home.open("ada")
        assert store.digests.count == kept + 7 and held(store)
        assert store.verify(deep=True).ok
    for path in (folder(home) / "digests").iterdir():
        data = bytearray(path.read_bytes())
        data[20] ^= 1
        path.write_bytes(data)
    store.digests.truncate(8)  # what was decrypted before is let go
    with pytest.raises(DamagedError, match="digests/"):
        store.digests.parts(0)
    store.close()
    assert home.open("ada").digests.count == 0


def test_a_key_file_that_asks_for_too_much_is_refused(tmp_path: Path) -> None:
    """A changed cost of scrypt may not eat the machine; what is no key file is damage."""
    home = DiskHome(tmp_path, key=MemoryKey.from_passphrase("open sesame"))
    create(home).close()
    path = folder(home) / "key"
    record = json.loads(path.read_bytes())
    for changed in ({**record, "n": 1 << 40}, {**record, "p": -1}):
        path.write_text(json.dumps(changed))
        with pytest.raises(WrongKeyError):
            home.open("ada")
    for text in ("", "[]", "{}", json.dumps({**record, "nonce": "xyz"})):
        path.write_text(text)
        with pytest.raises(DamagedError):
            home.open("ada")


def test_without_the_extra_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MissingExtraError says what to install; no agent is left behind."""
    import sys

    from agentmem.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    home = DiskHome(tmp_path, key=KEY)
    with pytest.raises(MissingExtraError, match=r"agentmem-kv\[crypto\]"):
        create(home)
    assert home.list() == []


def test_what_is_readable_without_the_key(home: DiskHome) -> None:
    """Who the agent is, and how often it committed: the open part of the index holds no other row."""
    store = home.open("ada")
    store.forget([2])
    store.rewind("state-1")
    store.close()
    with closing(sqlite3.connect(folder(home) / "agent.db")) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        held = {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}
        state = db.execute("SELECT head, next_segment, digest_kind, digest_count FROM state").fetchone()
    of_a_new_one = {"identity", "state", "_sqlite_migrations", "tallies"}
    assert {name for name, count in held.items() if count} == of_a_new_one
    assert state == (None, 0, None, 0)
    known = {"agent.db", "agent.db-wal", "agent.db-shm", "agent.enc", "agent.mark", "key", "lock"}
    assert {path.name for path in files(home) if path.parent == folder(home)} <= known
    assert len((folder(home) / "agent.mark").read_bytes()) == 16  # a number and its checksum


def test_forgotten_pages_that_are_put_back_cannot_be_read(home: DiskHome) -> None:
    """Their nonces and tags are nowhere in the index any more, free pages included: the old bytes are noise."""
    store = home.open("ada")
    before = {
        (number, page.page): page.sums
        for number in store._slots.segments()
        for page in store._slots.pages(number)
    }
    old = {path: path.read_bytes() for path in folder(home).glob("kv/*")}
    store.forget([2])
    after = {
        (number, page.page): page.sums
        for number in store._slots.segments()
        for page in store._slots.pages(number)
    }
    changed = [sums for place, sums in before.items() if after.get(place) != sums]
    image = store._index._db.conn.serialize()
    assert changed and any(sums in image for sums in before.values())
    assert not any(sums[:12] in image or sums[12:44] in image for sums in changed)
    store.close()
    for path, data in old.items():
        path.write_bytes(data)
    store = home.open("ada")
    assert same(contents(store.log), expected((1, 40), (-2, 50), (3, 7)))
    store.close()

"""A damaged index of an encrypted agent: what is authenticated comes back, what is not is said; nothing plain is written."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentmem.errors import DamagedError, KeyNeededError, WrongKeyError
from agentmem.store import DiskHome, MemoryKey
from agentmem.store.encrypted_index import FIRST_RECORD, INDEX_FILE, size_at
from agentmem.store.mended import SalvageReport
from support.encoding import again
from support.killing import killed
from support.stores import DIGEST_BLOCKS, SEGMENT_TOKENS, add_turn, contents, create, expected, same

COUNTS = [(seed, 20 + seed) for seed in range(1, 9)]
KEY = MemoryKey.generate()
SECRET = "zanzibar"
PART = 8192


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DiskHome:
    """A home whose encrypted agent "ada" has eight turns and a note; its snapshots are in parts of 8 KB."""
    for module in ("encrypted_index", "encrypted_salvage"):
        monkeypatch.setattr(f"agentmem.store.{module}.SNAPSHOT_PART", PART)
    home = DiskHome(tmp_path, segment_tokens=SEGMENT_TOKENS, digest_blocks=DIGEST_BLOCKS, key=KEY)
    store = create(home)
    store.note("config", {"chunk_tokens": 512})
    store.digests.select("mean")
    for seed, count in COUNTS:
        add_turn(
            store, seed, count, blocks=1, messages=[{"role": "user", "content": f"{SECRET} number{seed}"}]
        )
    store.close()
    return home


def index_of(home: DiskHome) -> Path:
    """The agent's index."""
    return home.folder_of("ada") / INDEX_FILE


def records(data: bytes) -> Iterator[int]:
    """Where each record begins."""
    at = FIRST_RECORD
    while at < len(data):
        yield at
        size = size_at(data, at)
        assert size is not None
        at += 4 + size


def flip(path: Path, place: int) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def check(home: DiskHome, report: SalvageReport) -> int:
    """What is left is what was written, or says that it is not; the agent goes on. Returns how many turns have words."""
    store = home.open("ada")
    store.repair(again)
    turns, worded = store.turns(), 0
    for seed, turn in enumerate(turns, start=1):
        assert (turn.id, turn.stop - turn.start) == (seed, 20 + seed)
        if seed in report.wordless:
            assert turn.messages == []
            continue
        worded += 1
        assert turn.state_id == f"state-{seed}"
        assert turn.messages == [{"role": "user", "content": f"{SECRET} number{seed}"}]
    dead, wanted = store.log.dead, expected(*COUNTS[: len(turns)]) if turns else []
    for tensor, other in zip(contents(store.log) if turns else [], wanted, strict=True):
        for token in range(tensor.shape[1]):
            if not any(low <= token < high for low, high in dead):
                assert same([tensor[:, token]], [other[:, token]]), token
    add_turn(store, 77, 30)
    store.close()
    store = home.open("ada")
    assert same([tensor[:, -30:] for tensor in contents(store.log)], expected((77, 30)))
    store.close()
    assert not any(SECRET.encode() in path.read_bytes() for path in home.home.rglob("*") if path.is_file())
    return worded


def test_any_one_record(home: DiskHome) -> None:
    """A bit of its content, tag or length: all other records' turns come back, with their numbers and their K/V."""
    whole = index_of(home).read_bytes()
    mark = (home.folder_of("ada") / "agent.mark").read_bytes()
    kvs = {path: path.read_bytes() for path in home.folder_of("ada").glob("*/*")}
    starts = list(records(whole))
    parts = sum(size_at(whole, at) == PART + 29 for at in starts) + 1
    for number in range(parts - 2, len(starts), 2):
        size = size_at(whole, starts[number]) or 0
        for place in (2, 4 + size // 2, 3 + size):
            for path in [path for path in home.folder_of("ada").glob("*/*") if path not in kvs]:
                path.unlink()
            for path, data in kvs.items():
                path.write_bytes(data)
            index_of(home).write_bytes(whole)
            (home.folder_of("ada") / "agent.mark").write_bytes(mark)
            flip(index_of(home), starts[number] + place)
            report = home.salvage("ada")
            known = (
                place > size and number < len(starts) - 1
            )  # a tag: the next record is bound to the right one
            assert any(INDEX_FILE in loss for loss in report.losses) != known, (number, place)
            assert check(home, report) >= (8 if known else 7), (number, place)


def test_a_lost_snapshot(home: DiskHome) -> None:
    """All of it: who the agent is stands in the open part, and every turn in the records after it."""
    data = index_of(home).read_bytes()
    for at in list(records(data))[: sum(size_at(data, at) == PART + 29 for at in records(data)) + 1]:
        flip(index_of(home), at + 100)
    with pytest.raises(DamagedError):
        home.open("ada")
    planned = home.salvage("ada", dry_run=True)
    report = home.salvage("ada")
    assert planned.losses == report.losses != []
    assert len(report.turns) == 8 and not report.wordless
    assert check(home, report) == 8


def test_a_part_of_a_long_snapshot(home: DiskHome) -> None:
    """One part of many: what lies in the others comes back."""
    store = home.open("ada")
    store._index.execute("VACUUM")
    store.close()
    whole = index_of(home).read_bytes()
    starts = list(records(whole))
    assert len(starts) > 10
    kept = 0
    for at in starts[1::3]:
        index_of(home).write_bytes(whole)
        (home.folder_of("ada") / "agent.mark").unlink(missing_ok=True)
        flip(index_of(home), at + 500)
        report = home.salvage("ada", dry_run=True)
        kept += len(report.turns) - len(report.wordless) == 8
        assert any(INDEX_FILE in loss for loss in report.losses)
    assert kept >= len(starts[1::3]) // 2


def test_random_damage(home: DiskHome) -> None:
    """Bytes overwritten anywhere, ends cut off: salvaged, or a typed error; never another text, never other K/V."""
    whole = index_of(home).read_bytes()
    kvs = {path: path.read_bytes() for path in home.folder_of("ada").glob("*/*")}
    salvaged = 0
    for seed in range(16):
        chance = random.Random(seed)
        data = bytearray(whole)
        for _ in range(chance.choice((1, 2, 5))):
            at, size = chance.randrange(len(data)), chance.choice((1, 8, 100, 3000))
            data[at : at + size] = chance.randbytes(len(data[at : at + size]))
        del data[chance.choice((len(data), chance.randrange(len(data)))) :]
        for path in [path for path in home.folder_of("ada").glob("*/*") if path not in kvs]:
            path.unlink()
        for path, content in kvs.items():
            path.write_bytes(content)
        index_of(home).write_bytes(data)
        try:
            report = home.salvage("ada")
        except DamagedError:
            continue
        salvaged += 1
        check(home, report)
    assert salvaged >= 10, salvaged


def test_only_with_the_key(home: DiskHome) -> None:
    """Without it, or with another, nothing is done; a sound index is left alone."""
    assert home.salvage("ada").ok
    flip(index_of(home), FIRST_RECORD + 50)
    before = index_of(home).read_bytes()
    with pytest.raises(KeyNeededError):
        DiskHome(home.home).salvage("ada")
    with pytest.raises(WrongKeyError):
        home.with_key(MemoryKey.generate()).salvage("ada")
    assert index_of(home).read_bytes() == before


def test_what_names_the_file_must_be_there(home: DiskHome) -> None:
    """Every record is bound to it: without it nothing is authenticated, and nothing is taken."""
    flip(index_of(home), 10)
    before = index_of(home).read_bytes()
    with pytest.raises(DamagedError, match="no record"):
        home.salvage("ada")
    assert index_of(home).read_bytes() == before


@pytest.mark.parametrize(
    "at", ["encrypted_salvage.saved_tables", "staging.Staging.keep", "encrypted_salvage.os.replace"]
)
def test_a_kill_while_salvaging(home: DiskHome, at: str) -> None:
    """Killed anywhere: nothing plain is left behind, and salvaging again gives the same."""
    starts = list(records(index_of(home).read_bytes()))
    flip(index_of(home), starts[-6] + 40)
    body: Callable[[object], object] = lambda _: home.salvage("ada")
    killed(home, body, at, opens=False)
    assert not any(SECRET.encode() in path.read_bytes() for path in home.home.rglob("*") if path.is_file())
    report = home.salvage("ada")
    assert check(home, report) >= 7
    assert not list(home.home.glob("workshop/*/*"))


def open_part(home: DiskHome, agent_id: str = "ada") -> Path:
    """What an encrypted agent says openly."""
    return home.folder_of(agent_id) / "agent.db"


@pytest.mark.parametrize("damage", ["noise", "header", "cut off", "gone", "uuid"])
@pytest.mark.parametrize("forked", [False, True], ids=["born", "forked"])
def test_a_damaged_open_part(home: DiskHome, damage: str, forked: bool) -> None:
    """Who the agent is comes from the encrypted index, and nothing else is lost; also where the key file is a fork's."""
    if forked:
        home.fork("ada", "bob")
        home.delete("ada")
        home.fork("bob", "ada")
    path = open_part(home)
    before, data = home.peek("ada"), bytearray(path.read_bytes())
    index = index_of(home).read_bytes()
    if damage == "noise":
        data = bytearray(random.Random(1).randbytes(len(data)))
    elif damage == "header":
        data[:100] = bytes(100)
    elif damage == "cut off":
        del data[2000:]
    elif damage == "uuid":
        at = data.index(before.uuid.encode())
        data[at : at + 4] = b"ffff"
    path.unlink()
    if damage != "gone":
        path.write_bytes(data)
        with pytest.raises(DamagedError):
            home.open("ada")
        with pytest.raises(DamagedError):
            home.peek("ada")
    planned = home.salvage("ada", dry_run=True)
    assert path.exists() == (damage != "gone") and (damage == "gone" or path.read_bytes() == data)
    report = home.salvage("ada")
    assert planned.losses == report.losses and len(report.losses) == 1 and "open part" in report.losses[0]
    assert planned.turns == report.turns == list(range(1, 9)) and not report.wordless
    assert home.peek("ada") == before and index_of(home).read_bytes().startswith(index)
    assert check(home, report) == 8
    assert home.salvage("ada").ok
    home.fork("ada", "eve")
    assert [info.agent_id for info in DiskHome(home.home).list() if "damaged" in info.agent_id] == []


def test_a_damaged_open_part_and_index(home: DiskHome) -> None:
    """The rest of the index says who it is, and gives up all but one turn."""
    starts = list(records(index_of(home).read_bytes()))
    flip(index_of(home), starts[-6] + 40)
    open_part(home).write_bytes(b"nothing")
    report = home.salvage("ada")
    assert len(report.losses) >= 2
    assert check(home, report) >= 7


def test_an_open_part_is_mended_with_the_right_key_alone(home: DiskHome) -> None:
    """Another key, words instead of a key, none, another agent's key file: nothing is changed."""
    folder, other = home.folder_of("ada"), create(home, "eve")
    other.close()
    open_part(home).write_bytes(b"nothing")
    for key in (MemoryKey.generate(), MemoryKey.from_passphrase("mumpitz")):
        with pytest.raises(WrongKeyError):
            home.with_key(key).salvage("ada")
    with pytest.raises(DamagedError):
        DiskHome(home.home).salvage("ada")
    mine, theirs = (home._folder(name) / "key" for name in ("ada", "eve"))
    kept = mine.read_bytes()
    mine.write_bytes(theirs.read_bytes())
    with pytest.raises(WrongKeyError):
        home.salvage("ada")
    mine.write_bytes(b"{}")
    with pytest.raises(DamagedError, match="key"):
        home.salvage("ada")
    assert open_part(home).read_bytes() == b"nothing"
    mine.write_bytes(kept)
    assert check(home, home.salvage("ada")) == 8
    assert folder.exists()


@pytest.mark.parametrize(
    "at", ["open_part.PlainPlace.swap", "salvage_places.os.replace", "disk.DiskStore.repair"]
)
def test_a_kill_while_the_open_part_is_mended(home: DiskHome, at: str) -> None:
    """Killed anywhere: salvaging again finishes it."""
    open_part(home).write_bytes(b"nothing")
    killed(home, lambda _: home.salvage("ada"), at, opens=False)
    assert not any(SECRET.encode() in path.read_bytes() for path in home.home.rglob("*") if path.is_file())
    assert check(home, home.salvage("ada")) == 8

"""A damaged index: what can still be read of it becomes a new one; what is lost is said, and nothing is made up."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agentmem.errors import DamagedError
from agentmem.store import DiskHome, salvage_rows
from agentmem.store.mended import SalvageReport
from support.encoding import again
from support.killing import killed
from support.stores import DIGEST_BLOCKS, SEGMENT_TOKENS, add_turn, contents, create, expected, same

COUNTS = [(seed, 20 + seed) for seed in range(1, 9)]


@pytest.fixture
def home(tmp_path: Path) -> DiskHome:
    """A home whose agent "ada" has eight turns, a branch left behind, a forgotten turn, a note and digests."""
    home = DiskHome(tmp_path, segment_tokens=SEGMENT_TOKENS, digest_blocks=DIGEST_BLOCKS)
    store = create(home)
    store.note("config", {"chunk_tokens": 512})
    store.digests.select("mean")
    for seed, count in COUNTS:
        add_turn(store, seed, count, blocks=1)
        if seed == 4:
            add_turn(store, 44, 9)
            store.rewind("state-4")
    store.close()
    return home


def index_of(home: DiskHome) -> Path:
    """The agent's index."""
    return home._folder("ada") / "agent.db"


def spoil(home: DiskHome, *statements: str) -> None:
    """Change rows behind the back of the index's checksums."""
    with sqlite3.connect(index_of(home)) as db:
        for statement in statements:
            db.execute(statement)
    db.close()


def check(home: DiskHome, report: SalvageReport, gone: set[int] = frozenset()) -> None:  # type: ignore[assignment]
    """The agent opens; every turn that is left is what it was, or says that it is not; it goes on, and heals."""
    store = home.open("ada")
    store.repair(again)
    turns = {turn.id: turn for turn in store.turns()}
    ids = {number: number if number < 5 else number - 1 for number in turns}  # turn 5 was the other branch's
    for number, turn in turns.items():
        seed = ids[number]
        assert turn.stop - turn.start == 20 + seed
        if number in report.wordless:
            assert turn.messages == []
        else:
            assert turn.state_id == f"state-{seed}"
            assert turn.messages == [{"role": "user", "content": f"message number{seed}"}]
    dead = store.log.dead
    found, wanted = (
        contents(store.log),
        expected(*[(seed, count) for seed, count in COUNTS if seed <= len(turns)]),
    )
    for tensor, other in zip(found, wanted, strict=True):
        for token in range(tensor.shape[1]):
            if not any(low <= token < high for low, high in dead):
                assert same([tensor[:, token]], [other[:, token]]), token
    for number, turn in turns.items():
        if number not in report.wordless:
            assert [one.id for one in store.search(f"number{ids[number]}")] == [turn.id]
    add_turn(store, 77, 30)
    store.close()
    store = home.open("ada")
    assert same([t[:, -30:] for t in contents(store.log)], expected((77, 30)))
    store.close()


SPOILS: dict[str, tuple[str, ...]] = {
    "a text": ("UPDATE turns SET messages = replace(messages, 'number3', 'number9') WHERE id = 3",),
    "a turn": ("DELETE FROM turns WHERE id = 6",),
    "two turns": ("DELETE FROM turns WHERE id IN (6, 7)",),
    "the first turn": ("DELETE FROM turns WHERE id = 1",),
    "the head": ("DELETE FROM turns WHERE id = 9",),
    "where it stands": ("UPDATE state SET head = 3",),
    "the state": ("DELETE FROM state",),
    "ids": ("UPDATE tokens SET ids = zeroblob(length(ids)) WHERE turn = 7",),
    "all ids": ("DELETE FROM tokens",),
    "extents": ("DELETE FROM extents WHERE turn = 3",),
    "a slot": ("UPDATE extents SET slot = slot + 1 WHERE turn = 2",),
    "all extents": ("DELETE FROM extents",),
    "checksums": ("DELETE FROM pages WHERE page = 1",),
    "a checksum": ("UPDATE pages SET sums = zeroblob(length(sums)) WHERE segment = 1 AND page = 0",),
    "segments": ("DELETE FROM segments",),
    "notes": ("DELETE FROM notes",),
    "digests": ("UPDATE digest_files SET filled = 1",),
    "a count": ("UPDATE tallies SET n = n + 1 WHERE name = 'turns'",),
    "a table": ("DROP TABLE rule_states",),
    "words": ("DELETE FROM words WHERE turn = 2", "UPDATE words SET words = 'x' WHERE turn = 3"),
    "an index": ("DROP INDEX turns_by_state",),
}


@pytest.mark.parametrize("name", SPOILS)
def test_lost_rows(home: DiskHome, name: str) -> None:
    """Whatever row or table is lost: before, a typed error or a finding; after, all else is there."""
    spoil(home, *SPOILS[name])
    try:
        store = home.open("ada")
        assert not store.verify().ok
        store.close()
    except DamagedError:
        pass
    planned = home.salvage("ada", dry_run=True)
    report = home.salvage("ada")

    assert planned.turns == report.turns and planned.wordless == report.wordless
    assert report.unreachable == []
    check(home, report)


def test_what_a_loss_costs(home: DiskHome) -> None:
    """A turn's row: its words, not its tokens. Its ids: nothing that is attended to. Its extents: its K/V, until repaired."""
    spoil(
        home,
        "DELETE FROM turns WHERE id = 6",
        "DELETE FROM tokens WHERE turn = 7",
        "DELETE FROM extents WHERE turn = 3",
    )
    report = home.salvage("ada")
    assert (list(report.wordless), list(report.without_ids)) == ([6], [7])
    assert report.repair is not None and report.repair.tokens("set aside") == 23
    assert not report.ok
    store = home.open("ada")
    (turn,) = [one for one in store.turns() if one.id == 3]
    assert list(store.log.dead) == [(turn.start, turn.stop)]
    assert store.token_ids(turn.start, turn.stop) == [3000 + i for i in range(23)]
    (bare,) = [one for one in store.turns() if one.id == 7]
    assert set(store.token_ids(bare.start, bare.stop)) == {-1}
    assert store.repair(again).tokens("exact") + store.repair(again).tokens("encoded") >= 0
    assert list(store.log.dead) == []
    store.close()


def test_a_sound_agent_is_left_alone(home: DiskHome) -> None:
    """Nothing is written; the report says so."""
    before = index_of(home).read_bytes()
    report = home.salvage("ada")

    assert report.ok and len(report.turns) == 9
    store = home.open("ada")
    assert len(store.turns()) == 8
    store.close()
    assert len(before) == index_of(home).stat().st_size
    check(home, report)


def test_a_lost_write_ahead_log(home: DiskHome) -> None:
    """Commits that were acknowledged and are gone: the agent can be used again as it was before them."""
    store = home.open("ada")
    store._index.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    add_turn(store, 9, 29)
    data = index_of(home).read_bytes()
    store.close()
    index_of(home).write_bytes(data)
    with pytest.raises(DamagedError):
        home.open("ada")
    report = home.salvage("ada")
    assert len(report.turns) == 9
    check(home, report)


def test_an_erasure_that_cannot_be_finished(home: DiskHome) -> None:
    """Slots still to be overwritten, and their file is gone: the agent can be opened again."""
    store = home.open("ada")
    with store._index.transaction():
        store._index.execute("INSERT INTO scrubs (segment, slot, count) VALUES (0, 0, 5)")
    store.close()
    (home._folder("ada") / "kv" / "000000.safetensors").unlink()
    with pytest.raises(DamagedError):
        home.open("ada")
    check(home, home.salvage("ada"))


@pytest.mark.parametrize("at", ["salvage_places.os.replace", "salvage_places.Path.unlink"])
def test_the_old_log_goes(home: DiskHome, at: str) -> None:
    """Killed before or after the new index took its place: nothing of the old one stays once the agent was opened."""
    store = home.open("ada")
    add_turn(store, 9, 29)
    files = {
        path: path.read_bytes() for path in home._folder("ada").glob("agent.db*") if path.suffix != ".db-shm"
    }
    store.close()
    for path, data in files.items():
        path.write_bytes(data)
    home._folder("ada").joinpath("agent.db-shm").unlink(missing_ok=True)
    spoil(home, "DELETE FROM turns WHERE id = 6")
    log = home._folder("ada") / "agent.db-wal"
    if not log.exists():
        log.write_bytes(b"")
    killed(home, lambda _: home.salvage("ada"), at, opens=False)
    home.salvage("ada")
    store = home.open("ada")
    assert [turn.state_id for turn in store.turns()][4:] == [
        "lost-6",
        "state-6",
        "state-7",
        "state-8",
        "state-9",
    ]
    assert store.verify(deep=True).ok
    store.close()
    assert not [path.name for path in home._folder("ada").iterdir() if "damaged" in path.name]


def test_whose_it_is_must_be_known(home: DiskHome) -> None:
    """Without its identity nothing is made up: DamagedError, and the files are as they were."""
    spoil(home, "DELETE FROM identity")
    before = index_of(home).read_bytes()
    with pytest.raises(DamagedError, match="identity"):
        home.salvage("ada")
    assert index_of(home).read_bytes() == before


def test_random_damage(home: DiskHome, tmp_path: Path) -> None:
    """Bytes of the file overwritten anywhere: salvaged, or a typed error; never another text, never other K/V."""
    whole = index_of(home).read_bytes()
    kvs = {path: path.read_bytes() for path in home._folder("ada").glob("kv/*")}
    salvaged = 0
    for seed in range(40):
        chance = random.Random(seed)
        data = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 5))):
            at = chance.randrange(len(data))
            size = chance.choice((1, 8, 100, 5000))
            data[at : at + size] = chance.randbytes(len(data[at : at + size]))
        for path in home._folder("ada").glob("agent.db*"):
            path.unlink()
        for path in home._folder("ada").glob("kv/*"):
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
    assert salvaged >= 20, salvaged


def test_a_lost_header(home: DiskHome) -> None:
    """The first bytes of the file: everything behind them is found again."""
    data = bytearray(index_of(home).read_bytes())
    data[:100] = bytes(100)
    index_of(home).write_bytes(data)
    with pytest.raises(DamagedError):
        home.open("ada")
    report = home.salvage("ada")
    assert len(report.turns) == 9 and not report.wordless
    check(home, report)


def test_a_disk_that_fails_once_loses_no_table(home: DiskHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old index is replaced, so what its first reading did not give is asked for in a second one."""
    spoil(home, "DELETE FROM turns WHERE id = 6")
    real, readings = salvage_rows._saved, []

    def once(conn: sqlite3.Connection, name: str, columns: Sequence[str]) -> salvage_rows.SavedTable:
        readings.append(name)
        if name == "pages" and readings.count(name) == 1:
            return salvage_rows.SavedTable(name, unread=True)
        found = real(conn, name, columns)
        if name == "turns" and readings.count(name) == 1:
            found.damaged.add(found.rows.popitem()[0])
        return found

    monkeypatch.setattr(salvage_rows, "_saved", once)
    report = home.salvage("ada")

    assert readings.count("pages") == 2
    assert list(report.wordless) == [6] and report.repair is not None and not report.repair.found
    check(home, report)


@pytest.mark.parametrize(
    "at",
    [
        "salvage_places.saved_tables",
        "staging.Staging.keep",
        "salvage.CommitMark.read",
        "salvage_places.os.replace",
        "salvage_places.sync_file",
    ],
)
def test_a_kill_while_salvaging(home: DiskHome, at: str) -> None:
    """Killed anywhere: salvaging again gives the same."""
    spoil(home, "DELETE FROM turns WHERE id = 6", "DELETE FROM extents WHERE turn = 3")
    body: Callable[[object], object] = lambda _: home.salvage("ada")
    killed(home, body, at, opens=False)
    report = home.salvage("ada")
    assert list(report.wordless) == [6]
    check(home, report)
    assert not list(home.home.glob("workshop/*/*"))

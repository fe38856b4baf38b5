"""Opening without walking: the trail says what the turns say, in any life, or it is not believed."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from agentmem.errors import DamagedError
from agentmem.store import DiskHome, seals
from agentmem.store.base import Turn
from agentmem.store.disk import DiskStore
from agentmem.store.trail import TURNS_A_ROW
from support.flipping import live
from support.old_index import make_older, versions
from support.stores import DIGEST_BLOCKS, SEGMENT_TOKENS, add_turn, contents, create, kv, new_turn


@pytest.fixture
def home(tmp_path: Path) -> DiskHome:
    """A home with tiny segments."""
    return DiskHome(tmp_path, segment_tokens=SEGMENT_TOKENS, digest_blocks=DIGEST_BLOCKS)


def index_of(home: DiskHome) -> Path:
    """The index of ada."""
    return home._folder("ada") / "agent.db"


def lose(home: DiskHome, table: str, rows: str) -> None:
    """Take rows out of a closed index behind the back of its checksums and triggers."""
    conn = sqlite3.connect(index_of(home))
    triggers = conn.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        conn.execute(f"DROP TRIGGER {name}")
    conn.execute(f"DELETE FROM {table} WHERE {rows}")
    for _, sql in triggers:
        conn.execute(sql)
    conn.commit()
    conn.close()


def long_life(home: DiskHome, turns: int, **fields: Any) -> None:
    """An agent of many tiny turns, closed."""
    store = create(home)
    store._index.execute("PRAGMA synchronous = OFF")  # type: ignore[attr-defined]
    for seed in range(turns):
        add_turn(store, seed, 1, **fields)
    store.close()


def told(store: DiskStore) -> tuple[list[Turn], list[torch.Tensor]]:
    """All turns of the branch and all K/V."""
    return store.turns(), contents(store.log)


def same(one: Any, other: Any) -> bool:
    """Equal turns, and equal K/V to the bit."""
    return bool(one[0] == other[0]) and all(map(torch.equal, one[1], other[1]))


def test_opening_checks_no_more_rows_in_a_long_life(home: DiskHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the turns: an opening looks at as many rows, but for one in 128 and one in a segment."""
    counted = []

    def counting(table: str, *values: Any) -> bytes:
        counted.append(table)
        return row_sum(table, *values)

    row_sum = seals.row_sum
    monkeypatch.setattr(seals, "row_sum", counting)
    looked_at = {}
    for name, turns in (("short", 40), ("long", 400)):
        store = create(home, name)
        store._index.execute("PRAGMA synchronous = OFF")  # type: ignore[attr-defined]
        for seed in range(turns):
            add_turn(store, seed, 1)
        store.close()
        counted.clear()
        home.open(name).close()
        looked_at[name] = len(counted)

    assert looked_at["long"] - looked_at["short"] <= 1 + 400 // TURNS_A_ROW + 400 // SEGMENT_TOKENS


def test_the_trail_is_what_the_turns_say_after_every_verb(home: DiskHome) -> None:
    """Turns, branches, rewinding, forgetting, pruning and repair: verify compares, and the next opening agrees."""
    chance = random.Random(5)
    store = create(home)
    add_turn(store, 0, 3)
    for seed in range(1, 60):
        verb = chance.choice(["turn"] * 6 + ["elsewhere", "rewind", "forget", "collect", "repair", "dropped"])
        living = [turn for turn in store.every_turn() if not turn.forgotten]
        if verb == "turn":
            add_turn(store, seed, chance.randrange(0, 40))
        elif verb in ("elsewhere", "dropped"):
            store.begin(chance.choice([None, *(turn.state_id for turn in living)]))
            store.log.append(*kv(seed, 5))
            store.commit(new_turn(seed, 5)) if verb == "elsewhere" else store.abort()
        elif verb == "rewind":
            store.rewind(chance.choice([None, *(turn.state_id for turn in living)]))
        elif verb == "forget" and living:
            store.forget([chance.choice(living).id])
        elif verb == "collect":
            store.collect(prune=chance.random() < 0.3)
        elif verb == "repair":
            store.repair(lambda _: ())
        assert store.verify().ok, verb
        before, dead = told(store), list(store.log.dead)
        store.close()
        store = home.open("ada")
        assert same(told(store), before), verb
        assert list(store.log.dead) == dead
    store.close()


def test_more_turns_than_fit_a_row(home: DiskHome) -> None:
    """A branch of several rows is read back whole, also from the middle of a row on."""
    long_life(home, 2 * TURNS_A_ROW + 3)
    store = home.open("ada")
    assert store.turn_count == 2 * TURNS_A_ROW + 3
    store.rewind(f"state-{TURNS_A_ROW + 5}")
    add_turn(store, 999, 2)
    store.close()
    store = home.open("ada")
    assert store.turn_count == TURNS_A_ROW + 7
    assert [turn.id for turn in store.turns(limit=2)] == [TURNS_A_ROW + 6, 2 * TURNS_A_ROW + 4]
    assert store.verify(deep=True).ok
    store.close()


def test_a_trail_is_emptied_by_the_index_itself(home: DiskHome) -> None:
    """A writer that knows nothing of it, such as an older agentmem, cannot leave one that is out of date."""
    store = create(home)
    for seed in range(3):
        add_turn(store, seed, 2)
    for change in (
        "UPDATE turns SET forgotten = 0 WHERE id = 2",
        "UPDATE extents SET count = count WHERE turn = 2",
        "DELETE FROM extents WHERE turn = 99",
    ):
        add_turn(store, 10 + len(change), 1)
        store._index.execute("BEGIN IMMEDIATE")  # type: ignore[attr-defined]
        assert store._index.execute("SELECT count(*) FROM trail")[0][0] == 1  # type: ignore[attr-defined]
        store._index.execute(change)  # type: ignore[attr-defined]
        left = store._index.execute("SELECT count(*) FROM trail")[0][0]  # type: ignore[attr-defined]
        assert left == int("99" in change)
        store._index.execute("COMMIT")  # type: ignore[attr-defined]
    store.close()


def test_an_older_writer_leaves_a_trail_that_is_not_believed(home: DiskHome) -> None:
    """One that ends elsewhere than the head says nothing: the turns are walked, and the next commit mends it."""
    store = create(home)
    for seed in range(3):
        add_turn(store, seed, 2)
    kept = store._index.execute("SELECT chunk, turns, runs FROM trail")  # type: ignore[attr-defined]
    add_turn(store, 3, 2)
    store._index.execute("UPDATE trail SET turns = ?, runs = ?", kept[0][1:])  # type: ignore[attr-defined]
    store.close()
    store = home.open("ada")
    assert store.turn_count == 4
    add_turn(store, 4, 2)
    assert store.verify().ok
    store.close()
    store = home.open("ada")
    assert store.turn_count == 5
    store.close()


@pytest.mark.parametrize("blob", ["turns", "runs"])
def test_a_trail_that_lies_is_found(home: DiskHome, blob: str) -> None:
    """One whose rows are sealed, but say something else: an opening refuses it, or verify names it."""
    store = create(home)
    for seed in range(3):
        add_turn(store, seed, 2)
    [(data,)] = store._index.execute(f"SELECT {blob} FROM trail")  # type: ignore[attr-defined]
    changed = bytearray(data)
    changed[8 if blob == "turns" else 16] ^= 1  # a turn's end, or a slot
    store._index.execute(f"UPDATE trail SET {blob} = ?", (bytes(changed),))  # type: ignore[attr-defined]
    assert [one.where for one in store.verify().findings] == ["table trail"]
    store.close()


@pytest.mark.parametrize(
    ("table", "lost", "use"),
    [
        ("turns", "id = 2", lambda store: store.turns()),
        ("turns", "id = 2", lambda store: store.every_turn()),
        ("turns", "id = 2", lambda store: store.origins()),
        ("turns", "id = 2", lambda store: store.observed_parts("notes")),
        ("turns", "id = 2", lambda store: store.turn_at(21)),
        ("turns", "id = 2", lambda store: store.find_state("state-1")),
        ("tokens", "turn = 2", lambda store: store.token_ids(0, 30)),
        ("words", "turn = 2", lambda store: store.search("message")),
        ("pages", "page = 0", lambda store: contents(store.log)),
        ("pages", "page = 0", lambda store: store.forget([1])),
    ],
)
def test_a_row_that_vanished_is_missed_by_who_needs_it(
    home: DiskHome, table: str, lost: str, use: Callable[[DiskStore], Any]
) -> None:
    """Long tables are not counted at an opening; yet nothing is answered without a row that should be there."""
    store = create(home)
    for seed in range(4):
        add_turn(store, seed, 20, source="notes", part=seed)
    store.close()
    lose(home, table, lost)
    store = home.open("ada")
    with pytest.raises(DamagedError):
        use(store)
    assert not store.verify().ok
    store.close()


def test_sources_are_counted(home: DiskHome) -> None:
    """Parts of a source are found on the branch alone, and nothing is left of a name that was forgotten."""
    store = create(home)
    first = add_turn(store, 1, 4, source="secret.txt", part=0)
    add_turn(store, 2, 4, source="secret.txt", part=1)
    assert [turn.part for turn in store.observed_parts("secret.txt")] == [0, 1]
    store.rewind(first.state_id)
    assert [turn.part for turn in store.observed_parts("secret.txt")] == [0]
    store.forget([1, 2])
    assert store.observed_parts("secret.txt") == []
    assert store._index.execute("SELECT * FROM sources") == []  # type: ignore[attr-defined]
    store.close()
    assert all(b"secret.txt" not in path.read_bytes() for path in index_of(home).parent.rglob("agent.db*"))


@pytest.mark.parametrize("version", versions()[1:])
def test_indexes_of_every_past_schema(home: DiskHome, version: str) -> None:
    """An agent of any older format reads the same, goes on, and is opened by its trail from then on."""
    store = create(home)
    live(store)
    before, parts = told(store), store.observed_parts("notes.txt")
    store.close()
    make_older(index_of(home), version)
    store = home.open("ada", read_only=True)
    assert same(told(store), before)
    store.close()
    store = home.open("ada")
    assert same(told(store), before)
    assert store.observed_parts("notes.txt") == parts
    add_turn(store, 70, 6, source="notes.txt", part=2)
    assert store.verify(deep=True).ok
    before = told(store)
    store.close()
    store = home.open("ada")
    assert same(told(store), before)
    assert len(store.observed_parts("notes.txt")) == len(parts) + 1
    store.close()


def test_commits_are_synced_after_an_opening(home: DiskHome) -> None:
    """The opening's own commit is not; every later one is, as the mark of what was acknowledged says."""
    long_life(home, 1)
    mark = index_of(home).with_name("agent.mark")
    before = mark.read_bytes()
    store = home.open("ada")
    assert mark.read_bytes() == before
    assert store._index.execute("PRAGMA synchronous") == [(2,)]
    add_turn(store, 1, 2)
    assert mark.read_bytes() != before
    store.close()

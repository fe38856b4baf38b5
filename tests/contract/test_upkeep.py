"""Pins, expiries, the audit and rebuilds, on disk and in memory: the same words for the same calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
import torch

from agentmem.errors import InputError, ReadOnlyError, StateForgottenError, StateNotFoundError, StoreError
from agentmem.memory.source import RuleState
from agentmem.store import Home, Store
from agentmem.store.upkeep import Reason, Rewritten, TurnMarks
from support.stores import add_turn, contents, create, digests, expected, kv, new_turn, same

WHY = Reason("rebuild", "match", "2026-01-02T03:04:05+00:00")


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    """An agent of four turns, tokens 0 to 30, 50, 60 and 100, and a side branch behind the second one."""
    store = create(home)
    store.digests.select("mean:8")
    add_turn(store, 1, 30, blocks=3)
    add_turn(store, 2, 20, blocks=2)
    add_turn(store, 5, 25, expires_at="2027-01-01T00:00:00+00:00")
    store.rewind("state-2")
    add_turn(store, 3, 10, blocks=1)
    add_turn(store, 4, 40, blocks=4)
    yield store
    store.close()


def read_again(store: Store, turn: int, seed: int, count: int) -> None:
    """What a caller does for one turn of a rebuild."""
    store.upkeep.stand_before(turn)
    store.log.append(*kv(seed, count))
    store.upkeep.stage(
        Rewritten(turn, f"again-{seed}", [seed * 1000 + i for i in range(count)], {"a": seed}, {})
    )


def reopened(home: Home, store: Store) -> Store:
    """Closed and opened again."""
    store.close()
    return home.open("ada")


def test_marks_are_kept(home: Home, store: Store) -> None:
    """Expiry comes with the turn, a pin later; both go with it."""
    end = "2027-01-01T00:00:00+00:00"
    assert store.upkeep.marks() == {3: TurnMarks(end)}
    store.upkeep.pin(3, pinned=True)
    store.upkeep.pin(1, pinned=True)
    store = reopened(home, store)
    assert store.upkeep.marks() == {1: TurnMarks(None, True), 3: TurnMarks(end, True)}
    store.upkeep.pin(3, pinned=False)
    assert store.upkeep.marks()[3] == TurnMarks(end, False)
    store.forget([3])
    assert 3 not in store.upkeep.marks()
    with pytest.raises(StateForgottenError):
        store.upkeep.pin(3, pinned=True)
    with pytest.raises(StateNotFoundError):
        store.upkeep.pin(99, pinned=True)
    home.fork("ada", "bob")
    with closing(home.open("bob", read_only=True)) as bob:
        assert bob.upkeep.marks() == {1: TurnMarks(None, True)}
        with pytest.raises(ReadOnlyError):
            bob.upkeep.pin(1, pinned=False)
    store.close()


def test_what_was_dropped_is_noted(home: Home, store: Store) -> None:
    """With a reason, and without what it said; in the order it was dropped."""
    store.forget([4], reason=Reason("forget", "source", "2026-01-01T00:00:00+00:00"))
    store.forget([4, 5], reason=WHY)
    store.forget([1])
    store = reopened(home, store)
    assert [(row.what, row.why, row.at, list(row.turns), row.tokens) for row in store.upkeep.audit()] == [
        ("forget", "source", "2026-01-01T00:00:00+00:00", [4], 10),
        ("rebuild", "match", WHY.at, [5], 40),
    ]
    store.close()


def test_every_turn_of_every_branch(store: Store) -> None:
    """By number, with the ids of each."""
    turns = store.every_turn()
    assert [(turn.id, turn.parent, turn.start, turn.stop) for turn in turns] == [
        (1, None, 0, 30),
        (2, 1, 30, 50),
        (3, 2, 50, 75),
        (4, 2, 50, 60),
        (5, 4, 60, 100),
    ]
    assert store.upkeep.ids_of(3) == [5000 + i for i in range(25)]
    store.forget([3])
    assert store.upkeep.ids_of(3) == [-1] * 25
    with pytest.raises(StateNotFoundError):
        store.upkeep.ids_of(9)


def test_a_rebuild_swaps_all_branches_at_once(home: Home, store: Store) -> None:
    """New tokens, places and states under the old numbers; old state ids lead there; what went is forgotten."""
    assert store.upkeep.begin_rebuild([2]) == [3, 4, 5]
    read_again(store, 3, 13, 20)
    read_again(store, 4, 14, 90)
    store.upkeep.stand_before(5)
    assert store.log.committed == 120 and store.digests.count == 3
    store.log.append(*kv(15, 5))
    store.digests.append(digests(15, 2))
    store.upkeep.stage(Rewritten(5, "again-15", [0] * 5, {}, {"blocks": []}))
    with closing(home.open("ada", read_only=True)) as reader:
        assert same(contents(reader.log), expected((1, 30), (2, 20), (3, 10), (4, 40)))
    assert store.upkeep.commit_rebuild(WHY) == 20

    for again in (False, True):
        store = reopened(home, store) if again else store
        assert [
            (turn.id, turn.parent, turn.start, turn.stop, turn.state_id) for turn in store.every_turn()
        ] == [
            (1, None, 0, 30, "state-1"),
            (3, 1, 30, 50, "again-13"),
            (4, 1, 30, 120, "again-14"),
            (5, 4, 120, 125, "again-15"),
        ]
        assert [turn.id for turn in store.turns()] == [1, 4, 5] and store.head is not None
        assert (store.head.id, store.head.messages[0]["content"]) == (5, "message number4")
        assert same(contents(store.log), expected((1, 30), (14, 90), (15, 5)))
        assert store.token_ids(118, 122) == [14088, 14089, 0, 0]
        assert store.digests.count == 5
        assert store.turn(4).settings == {"a": 14}
        assert store.find_state("state-3").id == 4 and store.find_state("again-15").id == 5
        with pytest.raises(StateForgottenError):
            store.find_state("state-2")
        assert [turn.id for turn in store.search("number4")] == [5] and store.search("number2") == []
        assert store.upkeep.audit()[-1].turns == [2] and 3 in store.upkeep.marks()
        assert store.verify(deep=True).ok
    store.rewind("state-5")
    assert same(contents(store.log), expected((1, 30), (13, 20)))
    add_turn(store, 7, 200)
    store = reopened(home, store)
    assert same(contents(store.log), expected((1, 30), (13, 20), (7, 200)))
    store.upkeep.begin_rebuild([3])
    read_again(store, 6, 8, 3)
    store.upkeep.commit_rebuild(WHY)
    with pytest.raises(StateForgottenError):
        store.find_state("state-5")
    assert store.find_state("state-7").state_id == "again-8"
    assert store.collect(prune=True).turns == 2
    assert same(contents(store.log), expected((1, 30), (8, 3))) and store.verify(deep=True).ok
    store.close()


def test_an_aborted_rebuild_leaves_nothing(home: Home, store: Store) -> None:
    """Everything is as it was, and its slots are used again."""
    before = contents(store.log), store.every_turn()
    store.upkeep.begin_rebuild([1])
    read_again(store, 2, 12, 100)
    store.upkeep.stand_before(3)
    store.log.append(*kv(9, 30))
    store.abort()
    for again in (False, True):
        store = reopened(home, store) if again else store
        assert same(contents(store.log), before[0]) and store.every_turn() == before[1]
        assert store.find_state("state-3").id == 4
        assert store.verify(deep=True).ok
    with pytest.raises(StoreError, match="begin_rebuild"):
        store.upkeep.commit_rebuild(WHY)
    add_turn(store, 6, 50)
    assert same(contents(reopened(home, store).log), expected((1, 30), (2, 20), (3, 10), (4, 40), (6, 50)))


def test_a_rebuild_is_whole_or_refused(store: Store) -> None:
    """Not every turn read again, another number of ids, or a turn that is not there: refused."""
    with pytest.raises(StateNotFoundError):
        store.upkeep.begin_rebuild([9])
    todo = store.upkeep.begin_rebuild([2])
    store.upkeep.stand_before(todo[0])
    store.log.append(*kv(1, 3))
    with pytest.raises(InputError):
        store.upkeep.stage(Rewritten(todo[0], "x", [1], {}, {}))
    with pytest.raises(StoreError, match="not read again"):
        store.upkeep.commit_rebuild(WHY)
    store.abort()
    assert same(contents(store.log), expected((1, 30), (2, 20), (3, 10), (4, 40)))


def test_the_states_of_rules_are_rebuilt_too(home: Home, store: Store) -> None:
    """While it goes on, what was staged counts; afterwards it is stored, and nothing of the old ones is left."""

    def state(seed: int, start: int, tokens: int) -> RuleState:
        return RuleState(
            "rule", start, torch.full((2, tokens), float(seed)), seed, torch.full((1, 4), seed).short()
        )

    for seed in (6, 7, 8):
        store.begin()
        store.log.append(*kv(seed, 10))
        store.digests.states.keep(state(seed, 0, 10))
        store.commit(new_turn(seed, 10))
    assert store.upkeep.begin_rebuild([6]) == [7, 8]
    for turn, seed in ((7, 17), (8, 18)):
        store.upkeep.stand_before(turn)
        last = store.digests.states.last("rule")
        assert (last is None) if turn == 7 else (last is not None and last.first == 17)
        assert [first for first, _ in store.digests.states.closed("rule")] == ([] if turn == 7 else [17])
        store.log.append(*kv(seed, 4))
        store.digests.states.keep(state(seed, 100, 4))
        store.upkeep.stage(Rewritten(turn, f"again-{seed}", [1] * 4, {}, {}))
    store.upkeep.commit_rebuild(WHY)
    store = reopened(home, store)
    last = store.digests.states.last("rule")
    assert last is not None and (last.first, last.start) == (18, 100)
    assert [first for first, _ in store.digests.states.closed("rule")] == [17, 18]
    store.close()

"""Turns that go on from another state than the head: what every store must do, on disk and in memory alike."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from agentmem.errors import ReadOnlyError, StateForgottenError, StateNotFoundError, StoreError
from agentmem.store import Home, Store
from support.stores import (
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
def store(home: Home) -> Iterator[Store]:
    """Three turns with digests; the head is the third."""
    store = create(home)
    for seed in (1, 2, 3):
        add_turn(store, seed, 50, blocks=3)
    yield store
    store.close()


def reopened(home: Home, store: Store) -> Store:
    """The same agent, closed and opened again."""
    store.close()
    return home.open(store.identity.agent_id)


def told(store: Store) -> list[str]:
    """The states of the current branch."""
    return [turn.state_id for turn in store.turns()]


def begin_after(store: Store, after: str | None, seed: int = 9, tokens: int = 100) -> None:
    """Open a turn after a state, and write to it."""
    store.begin(after)
    store.log.append(*kv(seed, tokens))
    store.digests.append(digests(seed, 4))


def check_untouched(store: Store) -> None:
    """The three turns are there as they were, and can be gone on from."""
    assert told(store) == ["state-1", "state-2", "state-3"]
    assert store.head is not None and store.head.state_id == "state-3"
    assert same(contents(store.log), expected((1, 50), (2, 50), (3, 50)))
    assert store.token_ids(148, 150) == [3048, 3049]
    assert store.verify(deep=True).ok
    add_turn(store, 7, 70, blocks=2)
    assert same(contents(store.log), expected((1, 50), (2, 50), (3, 50), (7, 70)))


def test_the_open_turn_stands_on_the_state_asked_for(store: Store) -> None:
    """While the turn is open, log, ids, turns and head are those of that state."""
    begin_after(store, "state-1")

    assert (store.log.committed, store.log.length) == (50, 150)
    assert same(contents(store.log), expected((1, 50), (9, 100)))
    assert told(store) == ["state-1"]
    assert store.head is not None and store.head.state_id == "state-1"
    assert store.turn_at(49).state_id == "state-1"
    assert same([part[:, :3] for part in store.digests.parts(0)][:1], [digests(1, 3)[0]])
    assert store.digests.count == 7


def test_the_commit_moves_the_head(home: Home, store: Store) -> None:
    """The turn becomes a branch of its own, durably; the branch that was left stays reachable by id."""
    begin_after(store, "state-1")
    store.commit(new_turn(9, 100))

    for _ in range(2):
        assert told(store) == ["state-1", "state-9"]
        assert same(contents(store.log), expected((1, 50), (9, 100)))
        assert store.digests.count == 7
        assert store.verify(deep=True).ok
        store = reopened(home, store)
    store.rewind("state-3")
    assert same(contents(store.log), expected((1, 50), (2, 50), (3, 50)))
    store.close()


def test_none_is_before_the_first_turn(home: Home, store: Store) -> None:
    """A turn after nothing starts a tree of its own at token 0."""
    begin_after(store, None)
    assert (store.log.committed, store.head, store.turn_count) == (0, None, 0)
    turn = store.commit(new_turn(9, 100))

    assert (turn.parent, turn.start) == (None, 0)
    store = reopened(home, store)
    assert same(contents(store.log), expected((9, 100)))
    store.close()


@pytest.mark.parametrize("after", ["state-1", "state-2", None])
@pytest.mark.parametrize("reopen", [False, True])
def test_a_dropped_turn_leaves_the_head(home: Home, store: Store, after: str | None, reopen: bool) -> None:
    """Aborted, or closed in the middle: head, tokens and turns are as they were, and digests are never wrong."""
    begin_after(store, after)
    if reopen:
        store = reopened(home, store)
    else:
        store.abort()

    found = torch.cat([torch.empty(2, 0, 4), *store.digests.parts(0)], dim=1)
    wanted = torch.cat([digests(seed, 3)[0] for seed in (1, 2, 3)], dim=1)
    assert torch.equal(found, wanted[:, : store.digests.count])
    check_untouched(store)
    store.close()


def test_readers_see_the_head_that_is_committed(home: Home, store: Store) -> None:
    """Until the commit, another opening and a fork are where the head is."""
    begin_after(store, "state-1")
    reader = home.open("ada", read_only=True)
    home.fork("ada", "eve")
    fork = home.open("eve")

    for other in (reader, fork):
        assert told(other) == ["state-1", "state-2", "state-3"]
        assert same(contents(other.log), expected((1, 50), (2, 50), (3, 50)))
        other.close()
    store.commit(new_turn(9, 100))
    reader = home.open("ada", read_only=True)
    assert told(reader) == ["state-1", "state-9"]
    reader.close()


def test_after_the_head_is_a_plain_turn(store: Store) -> None:
    """Naming the state the head is at anyway keeps everything, digests included."""
    begin_after(store, "state-3")
    assert store.digests.count == 13
    store.abort()
    assert store.digests.count == 9
    check_untouched(store)


def test_a_retry_with_the_same_state_id(home: Home, store: Store) -> None:
    """A turn equal to a sibling is a turn of its own; its id then means the one on the current branch."""
    first = store.find_state("state-3")
    store.begin("state-2")
    store.log.append(*kv(3, 50))
    again = store.commit(new_turn(3, 50))

    assert again.id != first.id
    assert store.find_state("state-3") == again
    store = reopened(home, store)
    assert store.find_state("state-3") == again
    add_turn(store, 4, 10)
    assert [turn.id for turn in store.turns(at="state-3")] == [1, 2, again.id]
    store.close()


@pytest.mark.parametrize("wrong", ["unknown", "forgotten"])
def test_a_state_that_is_not_there(store: Store, wrong: str) -> None:
    """An unknown or forgotten state opens no turn, and nothing has changed."""
    if wrong == "forgotten":
        store.rewind("state-2")
        add_turn(store, 4, 5)
        store.forget([4])
        store.rewind("state-3")
    error, state = (
        (StateForgottenError, "state-4") if wrong == "forgotten" else (StateNotFoundError, "0" * 32)
    )
    with pytest.raises(error):
        store.begin(state)
    with pytest.raises(error):
        store.turns(at=state)
    store.abort()
    check_untouched(store)


def test_who_may_not(home: Home, store: Store) -> None:
    """A reader, and a store whose turn is open, are refused."""
    reader = home.open("ada", read_only=True)
    with pytest.raises(ReadOnlyError):
        reader.begin("state-1")
    reader.close()
    store.begin("state-1")
    with pytest.raises(StoreError, match="open"):
        store.begin("state-2")
    store.abort()
    check_untouched(store)


def test_turns_of_any_branch(home: Home, store: Store) -> None:
    """``turns(at=...)`` lists the branch that ends at a state, wherever the head is."""
    store.rewind("state-1")
    add_turn(store, 4, 10)

    assert [turn.state_id for turn in store.turns(at="state-3")] == ["state-1", "state-2", "state-3"]
    assert [turn.state_id for turn in store.turns(at="state-3", limit=2)] == ["state-2", "state-3"]
    assert [turn.state_id for turn in store.turns(at="state-1")] == ["state-1"]
    assert store.turns(at=None) == []
    assert told(store) == ["state-1", "state-4"]
    reader = home.open("ada", read_only=True)
    assert store.turns(at="state-2") == reader.turns(at="state-2")
    reader.close()

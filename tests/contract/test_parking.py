"""Parking: the right to write is given up between turns, and taken again if nobody used it meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentmem.errors import AgentBusyError, ClosedError, ReadOnlyError, StoreError
from agentmem.store import Home, Store
from support.stores import (
    add_turn,
    contents,
    create,
    expected,
    kv,
    new_turn,
    same,
)


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    """Two turns, read once, and parked."""
    store = create(home)
    add_turn(store, 1, 50, blocks=3)
    add_turn(store, 2, 50, blocks=3)
    contents(store.log)
    store.digests.parts(0)
    store.park()
    yield store
    store.close()


CALLS: dict[str, Callable[[Store], Any]] = {
    "turns": lambda store: store.turns(),
    "turn": lambda store: store.turn(1),
    "turn_at": lambda store: store.turn_at(0),
    "find_state": lambda store: store.find_state("state-1"),
    "observed_parts": lambda store: store.observed_parts("x"),
    "token_ids": lambda store: store.token_ids(0, 0),
    "search": lambda store: store.search("message"),
    "begin": lambda store: store.begin(),
    "commit": lambda store: store.commit(new_turn(3, 0)),
    "rewind": lambda store: store.rewind("state-1"),
    "forget": lambda store: store.forget([1]),
    "collect": lambda store: store.collect(),
    "verify": lambda store: store.verify(),
    "note": lambda store: store.note("a", 1),
    "noted": lambda store: store.noted("a"),
}


@pytest.mark.parametrize("call", sorted(CALLS))
def test_parked_it_refuses(store: Store, call: str) -> None:
    """Every call is refused while it is parked, and the message says what to do."""
    with pytest.raises(ClosedError, match="unpark"):
        CALLS[call](store)
    store.abort()
    store.park()
    assert store.unpark()
    assert len(store.turns()) == 2


def test_nobody_came(home: Home, store: Store) -> None:
    """Everything is as it was, nothing is read or checked again, and turns go on."""
    before = store.bytes_read
    assert store.unpark()
    assert store.unpark()
    assert store.bytes_read == before
    assert store.digests.count == 6
    with pytest.raises(AgentBusyError):
        home.open("ada")
    add_turn(store, 3, 50, blocks=3)
    store.park()
    assert store.unpark()
    assert same(contents(store.log), expected((1, 50), (2, 50), (3, 50)))
    assert store.verify(deep=True).ok


def test_readers_do_not_disturb(home: Home, store: Store) -> None:
    """Reading, forking and listing need no right to write, and change nothing that counts."""
    reader = home.open("ada", read_only=True)
    assert same(contents(reader.log), expected((1, 50), (2, 50)))
    home.fork("ada", "eve")
    home.list()
    assert home.peek("ada").agent_id == "ada"
    reader.close()
    fork = home.open("eve")
    fork.forget([2])
    fork.close()

    assert store.unpark()
    assert same(contents(store.log), expected((1, 50), (2, 50)))
    add_turn(store, 3, 50)
    assert store.verify(deep=True).ok


def test_another_writer_came(home: Home, store: Store) -> None:
    """Opened and changed elsewhere: False, the store is closed, and a fresh one sees the change."""
    other = home.open("ada")
    add_turn(other, 3, 50)
    other.close()

    assert not store.unpark()
    with pytest.raises(ClosedError, match="closed"):
        store.turns()
    with pytest.raises(ClosedError, match="closed"):
        store.unpark()
    fresh = home.open("ada")
    assert same(contents(fresh.log), expected((1, 50), (2, 50), (3, 50)))
    assert fresh.verify(deep=True).ok
    fresh.close()


def test_another_writer_is_there(home: Home, store: Store) -> None:
    """Busy, and still parked; waited for, the answer is False."""
    other = home.open("ada")
    with pytest.raises(AgentBusyError):
        store.unpark()
    with pytest.raises(ClosedError, match="unpark"):
        store.turns()

    def leave() -> None:
        time.sleep(0.05)
        other.close()

    leaving = threading.Thread(target=leave)
    leaving.start()
    assert not store.unpark(wait=30)
    leaving.join()


@pytest.mark.parametrize("again", [False, True])
def test_it_was_deleted(home: Home, store: Store, again: bool) -> None:
    """Deleted, or deleted and made anew: False; what is there now is left alone."""
    home.delete("ada")
    if again:
        other = create(home)
        add_turn(other, 7, 20)
    assert not store.unpark()
    if again:
        add_turn(other, 8, 20)
        other.close()
    assert home.exists("ada") is again
    if again:
        fresh = home.open("ada")
        assert same(contents(fresh.log), expected((7, 20), (8, 20)))
        assert fresh.verify(deep=True).ok
        fresh.close()


def test_a_writer_beside_a_parked_one_that_closes(home: Home, store: Store) -> None:
    """Closing what is parked does no harm to who writes now, nor to an agent made anew in its place."""
    other = home.open("ada")
    add_turn(other, 3, 50)
    store.close()
    store.close()
    with pytest.raises(AgentBusyError):
        home.open("ada")
    add_turn(other, 4, 50)
    other.park()
    home.delete("ada")
    new = create(home)
    add_turn(new, 7, 20)
    other.close()
    add_turn(new, 8, 20)
    new.close()
    new = home.open("ada")
    assert same(contents(new.log), expected((7, 20), (8, 20)))
    new.close()


def test_who_may_not_park(home: Home, store: Store) -> None:
    """Not in the middle of a turn, not a reader, not what was closed."""
    reader = home.open("ada", read_only=True)
    with pytest.raises(ReadOnlyError):
        reader.park()
    assert reader.unpark()
    reader.close()
    assert store.unpark()
    store.begin("state-1")
    store.log.append(*kv(3, 5))
    with pytest.raises(StoreError, match="open"):
        store.park()
    store.commit(new_turn(3, 5))
    store.close()
    with pytest.raises(ClosedError):
        store.park()

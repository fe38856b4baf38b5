"""What rules are committed with beside digests: kept with the turn, found along the branch, gone with forget."""

from __future__ import annotations

import os
import signal
import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from agentmem.errors import DamagedError
from agentmem.memory.source import RuleState
from agentmem.store import DiskHome, Home, Store
from support.old_index import make_older
from support.stores import DIGEST_BLOCKS, SEGMENT_TOKENS, create, kv, new_turn

KIND = "received"


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    """Three turns of 20 tokens, each with a state over the newest 30 tokens and one closed block."""
    store = create(home)
    for seed in (1, 2, 3):
        add_turn(store, seed)
    yield store
    store.close()


def state(seed: int, stop: int, kind: str = KIND) -> RuleState:
    """A state after ``stop`` tokens: two rows over up to 30 tokens, one block of four numbers."""
    start = max(0, stop - 30)
    running = torch.rand(2, stop - start, generator=torch.Generator().manual_seed(seed)) + 1
    return RuleState(kind, start, running, seed, torch.full((1, 4), -seed, dtype=torch.int16))


def add_turn(store: Store, seed: int, *, after: str | None = "head", kind: str = KIND) -> None:
    """Twenty tokens with a state."""
    store.begin(after)
    store.log.append(*kv(seed, 20))
    store.digests.states.keep(state(seed, store.log.length, kind))
    store.commit(new_turn(seed, 20))


def same(found: RuleState | None, wanted: RuleState) -> bool:
    """Whether two states are equal to the bit."""
    return (
        found is not None
        and (found.kind, found.start, found.first) == (wanted.kind, wanted.start, wanted.first)
        and torch.equal(found.running, wanted.running)
        and torch.equal(found.closed, wanted.closed)
    )


def told(store: Store) -> list[tuple[int, list[list[int]]]]:
    """What turns of the branch closed."""
    return [(first, closed.tolist()) for first, closed in store.digests.states.closed(KIND)]


def test_the_newest_turn_is_gone_on_from(store: Store, home: Home) -> None:
    """Here and after closing and opening, read-only too; another kind's is not taken for it."""
    for _ in range(2):
        assert same(store.digests.states.last(KIND), state(3, 60))
        assert store.digests.states.last("other") is None
        assert told(store) == [(seed, [[-seed] * 4]) for seed in (1, 2, 3)]
        store.close()
        store = home.open("ada")
    store.close()
    with_reader = home.open("ada", read_only=True)
    assert same(with_reader.digests.states.last(KIND), state(3, 60))
    with_reader.close()


def test_a_turn_without_a_state_breaks_the_chain(store: Store) -> None:
    """Nothing is taken over from further back; what was closed before it stays known."""
    store.begin()
    store.log.append(*kv(4, 20))
    store.commit(new_turn(4, 20))

    assert store.digests.states.last(KIND) is None
    assert len(told(store)) == 3


def test_a_dropped_turn_leaves_no_state(store: Store) -> None:
    """Neither as the last one, nor to be committed with the next turn."""
    store.begin()
    store.log.append(*kv(4, 20))
    store.digests.states.keep(state(4, 80))
    store.abort()
    assert same(store.digests.states.last(KIND), state(3, 60))
    store.begin()
    store.log.append(*kv(5, 20))
    store.commit(new_turn(5, 20))

    assert store.digests.states.last(KIND) is None


def test_the_state_is_that_of_the_branch(store: Store, home: Home) -> None:
    """After a rewind, in a turn that goes on from elsewhere, and in a fork."""
    home.fork("ada", "twin")
    store.rewind("state-1")
    assert same(store.digests.states.last(KIND), state(1, 20))
    add_turn(store, 7)
    assert told(store) == [(1, [[-1] * 4]), (7, [[-7] * 4])]
    store.begin("state-2")
    assert same(store.digests.states.last(KIND), state(2, 40))
    assert [first for first, _ in told(store)] == [1, 2]
    store.abort()
    assert same(store.digests.states.last(KIND), state(7, 40))
    store.begin(None)
    assert store.digests.states.last(KIND) is None and told(store) == []
    store.abort()
    twin = home.open("twin")
    assert same(twin.digests.states.last(KIND), state(3, 60))
    assert len(told(twin)) == 3
    twin.close()


def test_a_forgotten_turn_takes_its_numbers_along(store: Store, home: Home) -> None:
    """Its own state is gone, and in the states of later turns of its branch what its tokens had is zero."""
    store.rewind("state-1")
    add_turn(store, 8)  # tokens 20 to 40 of another branch
    store.rewind("state-3")
    turns = store.turns()
    store.forget([turns[1].id])
    store.close()
    store = home.open("ada")
    found, wanted = store.digests.states.last(KIND), state(3, 60).running
    assert found is not None and found.start == 30
    assert torch.equal(found.running[:, 10:], wanted[:, 10:])
    assert not found.running[:, :10].any()
    assert [first for first, _ in told(store)] == [1, 3]
    store.rewind("state-8")
    assert same(store.digests.states.last(KIND), state(8, 40))
    store.rewind("state-3")
    store.forget([turns[2].id])
    assert store.digests.states.last(KIND) is None
    assert store.collect(prune=True).turns == 1
    assert store.verify(deep=True).ok


@pytest.fixture
def disk(tmp_path: Path) -> DiskHome:
    """A home on disk with an agent of three turns, closed."""
    home = DiskHome(tmp_path, segment_tokens=SEGMENT_TOKENS, digest_blocks=DIGEST_BLOCKS)
    store = create(home)
    for seed in (1, 2, 3):
        add_turn(store, seed)
    store.close()
    return home


def index_of(home: DiskHome) -> sqlite3.Connection:
    """A connection behind the store's back."""
    (path,) = home.home.glob("agents/*/agent.db")
    return sqlite3.connect(path)


def test_damage_is_an_error_and_never_another_state(disk: DiskHome) -> None:
    """One changed byte: a typed error that names the turn, and a finding of a deep check."""
    with index_of(disk) as db:
        db.execute("UPDATE rule_states SET running = zeroblob(length(running)) WHERE turn = 3")
    db.close()
    store = disk.open("ada")

    with pytest.raises(DamagedError, match=r"row 3 of table rule_states.*another selector"):
        store.digests.states.last(KIND)
    found = [finding.where for finding in store.verify(deep=True).findings]
    assert found == ["row 3 of table rule_states", "rule state of turn 3"]
    store.close()


def test_an_index_from_before_there_were_states_is_read(disk: DiskHome) -> None:
    """Read-only it has none; a writer brings it up to date."""
    (path,) = disk.home.glob("agents/*/agent.db")
    make_older(path, "m002_rule_states")
    for read_only in (True, False):
        store = disk.open("ada", read_only=read_only)
        assert store.digests.states.last(KIND) is None and told(store) == []
        if not read_only:
            add_turn(store, 4)
            assert same(store.digests.states.last(KIND), state(4, 80))
        store.close()


def die(*_: object) -> None:
    """End this process at once, as kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("at", ["rule_states.BranchRuleStates.store", "index.Index.set_head"])
def test_a_kill_around_the_state_leaves_the_turn_before(disk: DiskHome, at: str) -> None:
    """Before its row is written, and behind it within the transaction: turn and state are those of before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside torch's idle threads
        child = os.fork()
    if child == 0:
        try:
            store = disk.open("ada")
            pytest.MonkeyPatch().setattr(f"agentmem.store.{at}", die)
            add_turn(store, 4)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    store = disk.open("ada")

    assert [turn.state_id for turn in store.turns()] == ["state-1", "state-2", "state-3"]
    assert same(store.digests.states.last(KIND), state(3, 60))
    assert store.verify(deep=True).ok
    store.close()

"""What is done to small agents without a model while faults happen, and what may be there afterwards.

Each operation runs on a home on disk, under faults, and on one in memory, which says what is right.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from agentmem.errors import AgentMemError, StateNotFoundError
from agentmem.store import DiskHome, Home, InMemoryHome, Store, VerifyReport
from agentmem.store.keys import MemoryKey
from agentmem.store.upkeep import Reason, Rewritten
from faults import children, shim
from support.old_index import make_older, versions
from support.stores import AT, add_turn, contents, create, digests, kv, new_turn

Snapshot = Mapping[str, Any]
"""Agent id -> everything that can be seen of it; an agent that is not there is not in it."""
NAMES = ("ada", "bob")
SEGMENT_TOKENS, DIGEST_BLOCKS = 64, 4


def nothing(home: Home | Store) -> None:
    """There is nothing to do."""


@dataclass(frozen=True)
class Operation:
    """``prepare`` makes what is there before, ``act`` is what faults happen in.

    ``disturb`` is done to the disk alone, after ``prepare``: what a killed process or an old version left.
    """

    name: str
    prepare: Callable[[Home], None]
    act: Callable[[Home], None]
    disturb: Callable[[DiskHome], None] = nothing


def disk_home(folder: Path) -> DiskHome:
    """A home whose files hold so little that a few turns need several."""
    return DiskHome(folder, segment_tokens=SEGMENT_TOKENS, digest_blocks=DIGEST_BLOCKS)


def encrypted_home(folder: Path) -> DiskHome:
    """The same, with a key that this process and its children have."""
    return disk_home(folder).with_key(_key())


@cache
def _key() -> MemoryKey:
    return MemoryKey.generate()


def expected(operation: Operation) -> tuple[Snapshot, Snapshot]:
    """(before, after) as the home in memory has them."""
    home = InMemoryHome()
    operation.prepare(home)
    before = snapshot(home)
    operation.act(home)
    return before, snapshot(home)


def snapshot(home: Home) -> Snapshot:
    """Everything that can be seen of a home's agents; on disk each is verified to the last byte.

    Raises:
        AssertionError: an agent does not verify.
    """
    found = {}
    for name in NAMES:
        if home.exists(name):
            store = home.open(name)
            report = store.verify(deep=True)
            assert whole(report), f"{name} does not verify: {report.findings}"
            found[name] = seen(store)
            store.close()
    return found


def read_all(home: Home) -> None:
    """Open every agent there is, read all of it, close it. Raises what opening and reading raise."""
    for name in NAMES:
        if home.exists(name):
            store = home.open(name)
            try:
                seen(store)
            finally:
                store.close()


def whole(report: VerifyReport) -> bool:
    """Nothing is wrong but digests, which are a cache: they are made again when they are next needed."""
    return all(finding.file.startswith("digests/") for finding in report.findings)


def seen(store: Store) -> Any:
    """Everything that can be seen of an open agent's committed past, of all branches."""
    turns = []
    for number in range(1, 40):
        with suppress(StateNotFoundError):
            turns.append(store.turn(number))
    length = store.log.committed
    digest = hashlib.sha256()
    for tensor in contents(store.log):
        for start, stop in store.log.dead:  # forgotten bytes may still have to be overwritten
            tensor[:, start:stop] = 0
        digest.update(tensor.numpy().tobytes())
    return (
        turns,
        None if store.head is None else store.head.id,
        [turn.id for turn in store.turns()],
        store.token_ids(0, length),
        list(store.log.dead),
        (store.log.length, digest.hexdigest()),
        store.noted("config"),
        store.upkeep.audit(),
        store.upkeep.marks(),
    )


def lived(home: Home) -> None:
    """Three turns in three segments, with digests, and a note."""
    store = create(home)
    store.note("config", {"a": 1})
    add_turn(store, 1, 40, blocks=2)
    add_turn(store, 2, 50, blocks=3)
    add_turn(store, 3, 45, blocks=2)
    store.close()


def forked(home: Home) -> None:
    """The same, with a fork that shares two segments, and a turn more on either side."""
    lived(home)
    home.fork("ada", "bob")
    for name in NAMES:
        store = home.open(name)
        add_turn(store, 4, 10, blocks=1)
        store.close()


def branched(home: Home) -> None:
    """The same, with a second branch and one turn forgotten."""
    lived(home)
    store = home.open("ada")
    store.rewind("state-1")
    add_turn(store, 5, 30, blocks=1)
    store.forget([2])
    store.close()


def with_ada(act: Callable[[Store], Any]) -> Callable[[Home], None]:
    """Open the agent, do that, close it. If it is refused, what is live must be what is stored."""

    def whole(home: Home) -> None:
        store = home.open("ada")
        try:
            before = seen(store)
            try:
                act(store)
            except AgentMemError as error:
                store.abort()
                live = _seen_now(store)
                store.close()
                _check_live(home, before, live, error)
                raise
        finally:
            store.close()

    return whole


def died_in(act: Callable[[Store], Any], at: str | None) -> Callable[[DiskHome], None]:
    """A process that dies in ``act`` when it gets to ``agentmem.store.<at>``; None: at its end, unclosed."""

    def body(home: DiskHome) -> Callable[[], None]:
        def run() -> None:
            store = home.open("ada")
            if at is None:
                act(store)
                _die()
            with patch(f"agentmem.store.{at}", _die):
                act(store)

        return run

    def leave(home: DiskHome) -> None:
        outcome = children.tried(body(home))
        assert outcome.ended == "killed", outcome

    return leave


def _turn(store: Store) -> None:
    add_turn(store, 7, 70, blocks=5)


def _turn_elsewhere(store: Store) -> None:
    store.begin("state-1")
    store.log.append(*kv(8, 70))
    store.digests.append(digests(8, 3))
    store.commit(new_turn(8, 70))


def _unfinished(store: Store) -> None:
    store.begin()
    store.log.append(*kv(9, 100))
    store.digests.append(digests(9, 4))


def _rebuild(store: Store) -> None:
    """Without the second turn; the third, in other tokens."""
    _half_rebuilt(store)
    store.upkeep.commit_rebuild(Reason("rebuild", "turn", AT))


def _half_rebuilt(store: Store) -> None:
    (later,) = store.upkeep.begin_rebuild([2])
    store.upkeep.stand_before(later)
    store.log.append(*kv(13, 75))
    store.digests.append(digests(13, 3))
    store.upkeep.stage(Rewritten(later, "again-13", [13] * 75, {}, {}))


def _given_up(store: Store) -> None:
    _half_rebuilt(store)
    store.abort()


def _draft(home: Home, name: str) -> None:
    """A finished agent in the workshop of "ada"."""
    home.clear_workshop("ada")
    draft = create(home.workshop("ada"), name)
    add_turn(draft, 6, 90, blocks=4)
    draft.close()


def _replace(home: Home) -> None:
    _draft(home, "ada")
    store = home.open("ada", read_only=True)
    head = store.head
    over = (store.identity.uuid, None if head is None else head.state_id)
    store.close()
    home.put_in_place("ada", "ada", over=over)


def _place(home: Home) -> None:
    _draft(home, "bob")
    home.put_in_place("ada", "bob")


PLAIN = (
    Operation("create", nothing, lambda home: create(home).close()),
    Operation("open and close", lived, with_ada(nothing)),
    Operation("turn", lived, with_ada(_turn)),
    Operation("turn elsewhere", branched, with_ada(_turn_elsewhere)),
    Operation("note", lived, with_ada(lambda store: store.note("config", {"b": [2] * 50}))),
    Operation("rewind", lived, with_ada(lambda store: store.rewind("state-1"))),
    Operation("forget", lived, with_ada(lambda store: store.forget([2]))),
    Operation("rebuild", lived, with_ada(_rebuild)),
    Operation("rebuild half way, and give up", lived, with_ada(_given_up)),
    Operation("pin", lived, with_ada(lambda store: store.upkeep.pin(1, pinned=True))),
    Operation("forget what a fork shares", forked, with_ada(lambda store: store.forget([1]))),
    Operation("collect", branched, with_ada(lambda store: store.collect(prune=True))),
    Operation("fork", lived, lambda home: home.fork("ada", "bob")),
    Operation("delete", forked, lambda home: home.delete("bob")),
    Operation("replace by a new one", lived, _replace),
    Operation("place a new one", lived, _place),
)
"""Each verb that changes files, on an agent that was closed properly."""


READING = Operation("open and read all", branched, read_all)
"""For faults on reads alone: it changes nothing, and reads everything, forgotten tokens too."""


def interrupted() -> tuple[Operation, ...]:
    """Openings that must first finish, or clear away, what a killed process began."""

    def again(
        name: str, base: Callable[[Home], None], act: Callable[[Store], Any], at: str | None, *, done: bool
    ) -> Operation:
        def prepare(home: Home) -> None:
            base(home)
            if isinstance(home, DiskHome):
                died_in(act, at)(home)
            elif done:
                with_ada(act)(home)

        return Operation(name, prepare, with_ada(nothing))

    def forget(store: Store) -> None:
        store.forget([2])

    def collect(store: Store) -> None:
        store.collect(prune=True)

    return (
        again("open after a kill in a turn", lived, _unfinished, None, done=False),
        again("open after a kill with a full WAL", lived, _turn, None, done=True),
        again("open after a kill in forget", lived, forget, "forgetting.scrub", done=True),
        again("open after a kill in scrubbing", lived, forget, "index.Index.compact", done=True),
        again("open after a kill in half a rebuild", lived, _half_rebuilt, None, done=False),
        again("open after a kill in a rebuild", lived, _rebuild, "forgetting.scrub", done=True),
        again("open after a kill in collect", branched, collect, "index.Index.compact", done=True),
    )


def migrations() -> tuple[Operation, ...]:
    """Openings of agents that older versions made: each past schema."""
    return tuple(
        Operation(f"migrate to {version}", lived, with_ada(nothing), partial(_aged, version))
        for version in versions()[1:]
    )


def _aged(version: str, home: DiskHome) -> None:
    make_older(home.folder_of("ada") / "agent.db", version)


def _seen_now(store: Store) -> Any:
    """What a live agent shows after a refusal; None when it cannot be read, and says so."""
    try:
        return seen(store)
    except AgentMemError:
        return None


def _check_live(home: Home, before: Any, live: Any, error: AgentMemError) -> None:
    """A refusal leaves the live agent as it was, or as it is stored now; never between."""
    shim.disarm()
    store = home.open("ada")
    stored = seen(store)
    store.close()
    assert live is None or live in (before, stored), f"after {error!r} the live agent is not the stored one"


def _die(*args: object, **kwargs: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)

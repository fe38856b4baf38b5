"""A session of an agent without a model, step by step, on disk and in memory at once.

Each step is one verb that is acknowledged when it returns. The home in memory says what must be there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentmem.store import Home, InMemoryHome, Store
from faults.operations import NAMES, Snapshot, seen
from support.stores import add_turn, create, digests, kv, new_turn


class Session:
    """A home with "ada" open between the steps."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.store: Store | None = None

    @property
    def ada(self) -> Store:
        """The agent, open."""
        if self.store is None:
            self.store = self.home.open("ada")
        return self.store

    def create(self) -> None:
        """Make the agent."""
        self.store = create(self.home)

    def reopen(self) -> None:
        """Close and open."""
        self.close()
        assert self.ada is not None

    def close(self) -> None:
        """Let go."""
        if self.store is not None:
            self.store.close()
            self.store = None

    def elsewhere(self, seed: int, count: int, after: str) -> None:
        """A turn that goes on from an earlier state."""
        self.ada.begin(after)
        self.ada.log.append(*kv(seed, count))
        self.ada.digests.append(digests(seed, 2))
        self.ada.commit(new_turn(seed, count))

    def dropped(self) -> None:
        """A turn that is not committed."""
        self.ada.begin()
        self.ada.log.append(*kv(99, 80))
        self.ada.digests.append(digests(99, 3))
        self.ada.abort()


STEPS: Sequence[Callable[[Session], object]] = (
    Session.create,
    lambda session: session.ada.note("config", {"a": 1}),
    lambda session: add_turn(session.ada, 1, 40, blocks=2),
    lambda session: add_turn(session.ada, 2, 50, blocks=3),
    Session.dropped,
    lambda session: add_turn(session.ada, 3, 45, blocks=2),
    lambda session: session.ada.rewind("state-2"),
    lambda session: add_turn(session.ada, 4, 12, blocks=1),
    lambda session: session.elsewhere(5, 20, "state-1"),
    lambda session: session.home.fork("ada", "bob"),
    Session.reopen,
    lambda session: add_turn(session.ada, 6, 30, blocks=1),
    lambda session: session.ada.forget([1]),
    lambda session: add_turn(session.ada, 7, 5),
    lambda session: session.ada.note("config", {"b": "x" * 3000}),
    lambda session: session.ada.collect(prune=True),
    Session.reopen,
    lambda session: add_turn(session.ada, 8, 33, blocks=2),
    lambda session: session.home.delete("bob"),
    lambda session: add_turn(session.ada, 9, 1),
    Session.close,
)


def run(home: Home, acknowledge: Callable[[int], None], steps: int = len(STEPS)) -> None:
    """Take the steps; each is told when it is done, counted from 1."""
    session = Session(home)
    for number, step in enumerate(STEPS[:steps], start=1):
        step(session)
        acknowledge(number)


def oracle() -> list[Snapshot]:
    """What must be there after 0, 1, 2, ... steps."""
    home = InMemoryHome()
    found: list[Snapshot] = [{}]
    run(home, lambda _: found.append(_looked(home)))
    return found


def _looked(home: Home) -> Snapshot:
    found = {}
    for name in NAMES:
        if home.exists(name):
            store = home.open(name, read_only=True)
            found[name] = seen(store)
            store.close()
    return found

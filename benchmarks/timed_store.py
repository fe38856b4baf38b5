"""A home whose stores are timed: how long a turn spends on making itself durable.

Wraps any home through its own protocol, so nothing inside agentmem is touched. Two clocks: ``append``
(pwrite of new K/V) and ``commit`` (checksums, sync, index); together they are the checkpoint of a turn.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from agentmem.memory.source import TokenLog
from agentmem.store.base import Home, NewTurn, Store, Turn


class StorageClock:
    """Seconds spent in the store since the last ``take``."""

    def __init__(self) -> None:
        self._seconds = {"append": 0.0, "commit": 0.0}

    @contextmanager
    def running(self, part: str) -> Iterator[None]:
        """Count a block's time."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[part] += time.perf_counter() - started

    def take(self) -> dict[str, float]:
        """What was counted; the clocks start at zero again."""
        taken, self._seconds = self._seconds, {"append": 0.0, "commit": 0.0}
        return taken


class TimedLog:
    """A token log whose ``append`` is timed."""

    def __init__(self, log: TokenLog, clock: StorageClock) -> None:
        self._log = log
        self._clock = clock

    def append(self, keys_raw: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """See :meth:`TokenLog.append`."""
        with self._clock.running("append"):
            self._log.append(keys_raw, values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


class TimedStore:
    """A store whose ``commit`` and ``log.append`` are timed."""

    def __init__(self, store: Store, clock: StorageClock) -> None:
        self._store = store
        self._clock = clock
        self.log = TimedLog(store.log, clock)

    def commit(self, turn: NewTurn) -> Turn:
        """See :meth:`Store.commit`."""
        with self._clock.running("commit"):
            return self._store.commit(turn)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class TimedHome:
    """A home that opens timed stores. ``clock`` runs for all of them; ``store`` is the newest one."""

    def __init__(self, home: Home) -> None:
        self.clock = StorageClock()
        self.store: TimedStore | None = None
        self._home = home

    def open(self, agent_id: str, **options: Any) -> TimedStore:
        """See :meth:`Home.open`."""
        return self._timed(self._home.open(agent_id, **options))

    def create(self, agent_id: str, **options: Any) -> TimedStore:
        """See :meth:`Home.create`."""
        return self._timed(self._home.create(agent_id, **options))

    def _timed(self, store: Store) -> TimedStore:
        self.store = TimedStore(store, self.clock)
        return self.store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._home, name)

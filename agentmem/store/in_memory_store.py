"""One agent in lists and tensors: a public test double of the disk store, and the oracle of its tests.

Knows no files and no SQLite; slow and plain on purpose.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from agentmem.errors import (
    ClosedError,
    InputError,
    ReadOnlyError,
    StateForgottenError,
    StateNotFoundError,
    StoreError,
)
from agentmem.store.base import (
    HEAD,
    AgentIdentity,
    CollectReport,
    Json,
    NewTurn,
    Origin,
    Turn,
    VerifyReport,
)
from agentmem.store.extents import merged
from agentmem.store.in_memory_log import InMemoryTokenLog
from agentmem.store.in_memory_upkeep import Grip, InMemoryUpkeep
from agentmem.store.kept_agent import KeptAgent, KeptTurn, json_text, turn_of
from agentmem.store.kept_states import PathRuleStates, wipe_states
from agentmem.store.mended import Encode, RepairReport
from agentmem.store.search import holds_all, words_of
from agentmem.store.upkeep import Reason, TurnMarks
from agentmem.store.volatile_digests import VolatileDigestLog


class InMemoryStore:
    """An agent of an :class:`InMemoryHome`, opened. See :class:`agentmem.store.base.Store`."""

    def __init__(self, agent: KeptAgent, *, read_only: bool) -> None:
        self._agent = agent
        self._epoch = agent.epoch
        self._read_only = read_only
        self._closed = False
        self._parked = False
        self._turn_open = False
        self._log = InMemoryTokenLog(agent.identity.layout)
        self._states = PathRuleStates(lambda: self._path)
        self._digests = VolatileDigestLog(agent.identity.layout.decoded, states=self._states)
        self._marked_digests: tuple[str | None, list[Tensor]] = (None, [])
        self._path: list[KeptTurn] = []
        grip = Grip(
            self._require_open,
            self._require_writer,
            lambda: self._path,
            self._stand,
            self._keep_digests_up_to,
            self._set_open,
        )
        self._upkeep = InMemoryUpkeep(agent, self._log, self._digests, self._states, grip)
        self._restore_digests(agent.digest_kind, agent.digests)
        self._stand_on(agent.head)

    @property
    def identity(self) -> AgentIdentity:
        """Who this is."""
        return self._agent.identity

    @property
    def read_only(self) -> bool:
        """True when nothing may be committed."""
        return self._read_only

    @property
    def log(self) -> InMemoryTokenLog:
        """Raw K/V of the current branch."""
        return self._log

    @property
    def digests(self) -> VolatileDigestLog:
        """Block digests of the current branch."""
        return self._digests

    @property
    def head(self) -> Turn | None:
        """The current turn; None for an empty memory."""
        return self._path[-1].turn if self._path else None

    @property
    def upkeep(self) -> InMemoryUpkeep:
        """Pins, expiries, the audit, and rebuilding."""
        return self._upkeep

    @property
    def bytes_read(self) -> int:
        """Always 0: there are no files."""
        return 0

    @property
    def turn_count(self) -> int:
        """How many turns there are from the root to the head."""
        return len(self._path)

    def turns(self, *, limit: int | None = None, at: str | None = HEAD) -> list[Turn]:
        """The turns from the root to the head or to the state ``at``; with ``limit``, the newest ones."""
        self._require_open()
        path = self._path if at == HEAD else self._agent.path(self._state(at))
        turns = [kept.turn for kept in path]
        return turns if limit is None else turns[max(0, len(turns) - limit) :]

    def every_turn(self) -> list[Turn]:
        """The turns of all branches, by number; forgotten ones too."""
        self._require_open()
        return [self._agent.kept[number].turn for number in sorted(self._agent.kept)]

    def turn(self, turn_id: int) -> Turn:
        """One turn of any branch. Raises StateNotFoundError."""
        self._require_open()
        if turn_id not in self._agent.kept:
            raise StateNotFoundError(f"there is no turn {turn_id}; see the history for those there are")
        return self._agent.kept[turn_id].turn

    def turn_at(self, position: int) -> Turn:
        """The turn of the current branch that holds token ``position``. Raises InputError."""
        self._require_open()
        for kept in self._path:
            if kept.turn.start <= position < kept.turn.stop:
                return kept.turn
        raise InputError(f"token {position} is not in the history, which holds {self._log.committed}")

    def find_state(self, state_id: str) -> Turn:
        """The turn of that state id, of any branch. Raises StateNotFoundError, StateForgottenError."""
        self._require_open()
        now = self._agent.moved.get(state_id, state_id)
        if now is None:
            raise StateForgottenError(f"state {state_id!r} was forgotten and cannot be returned to")
        found = [kept.turn for kept in self._agent.kept.values() if kept.turn.state_id == now]
        living = [turn for turn in found if not turn.forgotten]
        if not found:
            raise StateNotFoundError(f"there is no state {state_id!r}; see checkpoint() and the history")
        if not living:
            raise StateForgottenError(f"state {state_id!r} was forgotten and cannot be returned to")
        here = [turn for turn in living if turn in self.turns()]
        return (here or living)[-1]

    def observed_parts(self, source: str) -> list[Turn]:
        """Turns of the current branch with this source and a part number, in order."""
        return [turn for turn in self.turns() if turn.source == source and turn.part is not None]

    def origins(self, sources: Collection[str] | None = None) -> list[Origin]:
        """Where the words of the current branch's turns came from; forgotten ones are left out."""
        asked = [turn for turn in self.turns() if sources is None or turn.source in sources]
        living = [turn for turn in asked if not turn.forgotten]
        return [Origin(t.id, t.start, t.stop, t.role, t.source, t.trust) for t in living]

    def token_ids(self, start: int, stop: int) -> list[int]:
        """Ids of tokens [start, stop) of the current branch; -1 for forgotten ones."""
        self._require_open()
        if not 0 <= start <= stop <= self._log.committed:
            raise InputError(
                f"tokens {start} to {stop} are not in the history, which holds {self._log.committed}"
            )
        return [token for kept in self._path for token in kept.ids][start:stop]

    def search(self, query: str, *, limit: int = 20) -> list[Turn]:
        """Turns of the current branch whose text holds all the words, newest first."""
        wanted = words_of(query)
        found = [turn for turn in reversed(self.turns()) if wanted and holds_all(turn.messages, wanted)]
        return found[:limit]

    def begin(self, after: str | None = HEAD) -> None:
        """Open a turn that goes on from ``after``; the head itself moves with the commit alone.

        Raises ReadOnlyError, ClosedError, StateNotFoundError, StateForgottenError.
        """
        self._require_writer("begin a turn")
        target = self._agent.head if after == HEAD else self._state(after)
        if target != self._agent.head:
            self._drop_digests(target)
            self._stand_on(target)
        self._marked_digests = (self._digests.kind, self._digest_tensors())
        self._log.begin()
        self._turn_open = True

    def commit(self, turn: NewTurn) -> Turn:
        """Make the open turn part of the agent, then return it."""
        self._require_open()
        if not self._turn_open:
            raise StoreError("there is no open turn to commit; call begin() first")
        added = self._log.length - self._log.committed
        if len(turn.token_ids) != added:
            raise InputError(f"the turn added {added} tokens to the log, but has {len(turn.token_ids)} ids")
        new = turn_of(self._agent.next_id, self.head, turn)
        keys, values = self._log.settle()
        self._agent.kept[new.id] = KeptTurn(
            new,
            list(turn.token_ids),
            keys,
            values,
            self._digests.kind,
            self._digests.count,
            self._states.kept,
        )
        self._states.kept = None
        if turn.expires_at is not None:
            self._agent.marks[new.id] = TurnMarks(turn.expires_at)
        self._agent.next_id += 1
        self._agent.head = new.id
        self._keep_digests()
        self._path.append(self._agent.kept[new.id])
        self._turn_open = False
        return new

    def abort(self) -> None:
        """Drop the open turn, if any: head, log and digests are as they were before it."""
        if self._turn_open:
            self._log.abort()
            self._states.kept = None
            self._upkeep.drop_rebuild()
            self._restore_digests(*self._marked_digests)
            self._stand_on(self._agent.head)
            self._turn_open = False

    def rewind(self, state_id: str | None) -> None:
        """Move the head to that state (None: before the first turn). Later turns stay reachable by id."""
        self._require_writer("rewind")
        target = self._state(state_id)
        self._drop_digests(target)
        self._agent.head = target
        self._stand_on(target)

    def forget(self, turn_ids: Sequence[int], *, reason: Reason | None = None) -> int:
        """Drop turns' text, ids and K/V for good; returns the tokens dropped. Ranges become dead."""
        self._require_writer("forget")
        ids = [turn_id for turn_id in dict.fromkeys(turn_ids) if not self.turn(turn_id).forgotten]
        dropped = 0
        for turn_id in ids:
            kept = self._agent.kept[turn_id]
            if any(kept is own for own in self._path):
                parent = kept.turn.parent
                self._keep_digests_up_to(None if parent is None else self._agent.kept[parent])
            kept.turn = replace(
                kept.turn,
                messages=[],
                pending=None,
                source=None,
                part=None,
                settings={},
                receipt={},
                forgotten=True,
            )
            kept.ids = [-1] * len(kept.ids)
            kept.keys = [torch.zeros_like(tensor) for tensor in kept.keys]
            kept.values = [torch.zeros_like(tensor) for tensor in kept.values]
            kept.state = None
            wipe_states(self._agent, kept.turn)
            dropped += len(kept.ids)
        if ids:
            self._upkeep.note_dropped(reason, ids, dropped)
        self._stand_on(self._agent.head)
        return dropped

    def collect(self, *, prune: bool = False) -> CollectReport:
        """With ``prune`` drop the branches the head does not stand on."""
        self._require_writer("collect")
        here = {kept.turn.id for kept in self._path}
        gone = [turn_id for turn_id in self._agent.kept if turn_id not in here] if prune else []
        tokens = sum(len(self._agent.kept.pop(turn_id).ids) for turn_id in gone)
        self._upkeep.note_dropped(None, gone, tokens)
        return CollectReport(len(gone), tokens, 0, tokens * self.identity.layout.bytes_per_token)

    def verify(self, *, deep: bool = False) -> VerifyReport:
        """Nothing can be wrong with memory."""
        self._require_open()
        return VerifyReport(deep, 0, 0, [])

    def repair(self, ways: Callable[[Turn], Sequence[Encode]], *, dry_run: bool = False) -> RepairReport:
        """Nothing can be wrong with memory."""
        if dry_run:
            self._require_open()
        else:
            self._require_writer("repair")
        return RepairReport(dry_run, [])

    def note(self, key: str, value: Json) -> None:
        """Keep a small named JSON value; also while a turn is open."""
        self._require_open()
        if self._read_only:
            raise ReadOnlyError("the agent was opened read-only; open it for writing")
        self._agent.notes[key] = json_text(value)

    def noted(self, key: str) -> Json:
        """A value kept by ``note``; None when there is none."""
        self._require_open()
        return json.loads(self._agent.notes.get(key, "null"))

    def park(self) -> None:
        """Give the right to write up until ``unpark``."""
        if not self._parked:
            self._require_writer("park")
            self._parked = True
            self._agent.locked = False

    def unpark(self, wait: float = 0.0) -> bool:
        """Take the right to write again; False, and closed, when another writer or a delete came between.

        Raises AgentBusyError (the store stays parked), ClosedError.
        """
        if not self._parked:
            self._require_open()
            return True
        if not self._agent.deleted:
            self._agent.take(wait)
            self._parked = False
        current = not self._agent.deleted and self._agent.epoch == self._epoch
        if not current:
            self.close()
        return current

    def close(self) -> None:
        """Release the agent; the open turn is dropped. Closing twice is fine."""
        if not self._closed:
            self.abort()
            self._closed = True
            if not self._read_only and not self._parked:
                self._agent.locked = False
            self._parked = False

    def _stand_on(self, head: int | None) -> None:
        self._stand(self._agent.path(head))

    def _set_open(self, turn_open: bool) -> None:  # noqa: FBT001
        self._turn_open = turn_open
        if turn_open:
            self._marked_digests = (self._digests.kind, self._digest_tensors())

    def _stand(self, path: list[KeptTurn]) -> None:
        self._path = path
        dead = merged((kept.turn.start, kept.turn.stop) for kept in self._path if kept.turn.forgotten)
        self._log.load([(kept.keys, kept.values) for kept in self._path], dead)

    def _state(self, state_id: str | None) -> int | None:
        """The id of the turn of a state; None for the state before the first turn."""
        return None if state_id is None else self.find_state(state_id).id

    def _drop_digests(self, head: int | None) -> None:
        """Drop the digests that another branch does not share."""
        shared = [kept for kept in self._agent.path(head) if any(kept is own for own in self._path)]
        self._keep_digests_up_to(shared[-1] if shared else None)

    def _digest_tensors(self) -> list[Tensor]:
        layers = range(len(self.identity.layout.layers))
        return [tensor for layer in layers for tensor in self._digests.parts(layer)]

    def _keep_digests(self) -> None:
        self._agent.digest_kind, self._agent.digests = self._digests.kind, self._digest_tensors()

    def _keep_digests_up_to(self, kept: KeptTurn | None) -> None:
        same = kept is not None and kept.digest_kind == self._digests.kind
        self._digests.truncate(kept.digest_count if kept is not None and same else 0)
        self._keep_digests()

    def _restore_digests(self, kind: str | None, tensors: Sequence[Tensor]) -> None:
        self._digests.truncate(0)
        if kind is not None:
            self._digests.select(kind)
        if tensors:
            self._digests.append(tensors)

    def _require_open(self) -> None:
        if self._closed:
            raise ClosedError(f"agent {self.identity.agent_id!r} was closed; open it again")
        if self._parked:
            raise ClosedError(f"agent {self.identity.agent_id!r} is parked; unpark() it first")

    def _require_writer(self, verb: str) -> None:
        self._require_open()
        if self._read_only:
            raise ReadOnlyError(f"agent {self.identity.agent_id!r} was opened read-only: cannot {verb}")
        if self._turn_open:
            raise StoreError(f"cannot {verb} while a turn is open; commit or abort it")

"""Upkeep of an agent in memory: the oracle of :mod:`agentmem.store.disk_upkeep`. Slow and plain on purpose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from agentmem.errors import InputError, StateForgottenError, StateNotFoundError, StoreError
from agentmem.store.in_memory_log import InMemoryTokenLog
from agentmem.store.kept_agent import KeptAgent, KeptTurn
from agentmem.store.kept_states import PathRuleStates
from agentmem.store.rebuild_plan import RebuildPlan, plan_rebuild
from agentmem.store.upkeep import AuditRow, Reason, Rewritten, TurnMarks
from agentmem.store.volatile_digests import VolatileDigestLog


@dataclass(frozen=True)
class Grip:
    """What the upkeep may do to the store it belongs to."""

    require_open: Callable[[], None]
    require_writer: Callable[[str], None]
    path: Callable[[], list[KeptTurn]]
    stand: Callable[[list[KeptTurn]], None]
    """Stand on these turns: their K/V are the log."""
    keep_digests: Callable[[KeptTurn | None], None]
    """Keep the digests there were behind a turn of the path stood on."""
    set_open: Callable[[bool], None]
    """Say whether a turn is open."""


class InMemoryUpkeep:
    """Of one open agent."""

    def __init__(
        self,
        agent: KeptAgent,
        log: InMemoryTokenLog,
        digests: VolatileDigestLog,
        states: PathRuleStates,
        grip: Grip,
    ) -> None:
        self._agent = agent
        self._log = log
        self._digests = digests
        self._states = states
        self._grip = grip
        self._plan: RebuildPlan | None = None
        self._staged: dict[int, KeptTurn] = {}

    @property
    def erasure_due(self) -> bool:
        """Never: there are no files."""
        return False

    def ids_of(self, turn_id: int) -> list[int]:
        """Token ids of one turn of any branch; -1 for forgotten ones. Raises StateNotFoundError."""
        self._grip.require_open()
        return list(self._kept(turn_id).ids)

    def marks(self) -> Mapping[int, TurnMarks]:
        """Turns that expire or are pinned."""
        self._grip.require_open()
        return dict(self._agent.marks)

    def pin(self, turn_id: int, *, pinned: bool) -> None:
        """Let retention never drop a turn, or let it again. Raises StateNotFoundError, StateForgottenError."""
        self._grip.require_writer("pin")
        if self._kept(turn_id).turn.forgotten:
            raise StateForgottenError(f"turn {turn_id} was forgotten; there is nothing left to pin")
        self._agent.marks[turn_id] = replace(self._agent.marks.get(turn_id, TurnMarks()), pinned=pinned)

    def audit(self) -> list[AuditRow]:
        """What was dropped from this agent, oldest first."""
        self._grip.require_open()
        return list(self._agent.audit)

    def note_dropped(self, reason: Reason | None, turn_ids: Sequence[int], tokens: int) -> None:
        """Turns were dropped: their marks go, and with a reason the audit says so."""
        for turn_id in turn_ids:
            self._agent.marks.pop(turn_id, None)
        if reason is not None:
            row = AuditRow(reason.what, reason.why, reason.at, list(turn_ids), tokens)
            self._agent.audit.append(row)

    def begin_rebuild(self, turn_ids: Sequence[int]) -> list[int]:
        """Open a rebuild without these turns; returns those to be read again."""
        self._grip.require_writer("rebuild")
        turns = [self._kept(turn_id).turn for turn_id in self._agent.kept]
        for turn_id in turn_ids:
            self._kept(turn_id)
        self._plan = plan_rebuild(turns, turn_ids, self._agent.head)
        self._staged = {}
        firsts = {parent for parent in self._plan.parents.values() if parent not in self._plan.parents}
        for first in firsts:  # digests that any turn of the rebuild may write over
            self._keep_shared(self._path(first))
        self._log.begin()
        self._grip.set_open(True)
        return list(self._plan.todo)

    def stand_before(self, turn_id: int) -> None:
        """Stand where the turn before this one ends in the rebuilt memory."""
        path = self._path(self._open_plan().parents[turn_id])
        self._keep_shared(path)
        self._grip.stand(path)
        self._log.begin()

    def stage(self, rewritten: Rewritten) -> None:
        """The tokens appended since ``stand_before`` are this turn's. Raises InputError."""
        parent = self._open_plan().parents[rewritten.turn]
        start, stop = self._log.committed, self._log.length
        if len(rewritten.token_ids) != stop - start:
            raise InputError(
                f"turn {rewritten.turn} added {stop - start} tokens to the log, but has "
                f"{len(rewritten.token_ids)} ids"
            )
        turn = replace(
            self._agent.kept[rewritten.turn].turn,
            parent=parent,
            start=start,
            stop=stop,
            state_id=rewritten.state_id,
            settings=dict(rewritten.settings),
            receipt=dict(rewritten.receipt),
        )
        keys, values = self._log.settle()
        self._staged[turn.id] = KeptTurn(
            turn,
            list(rewritten.token_ids),
            keys,
            values,
            self._digests.kind,
            self._digests.count,
            self._states.kept,
        )
        self._states.kept = None
        self._grip.stand([*self._grip.path(), self._staged[turn.id]])

    def commit_rebuild(self, reason: Reason) -> int:
        """Put what was staged into the place of what there was, all at once; returns the tokens dropped."""
        agent, plan = self._agent, self._open_plan()
        missing = [number for number in plan.todo if number not in self._staged]
        if missing:
            raise StoreError(f"turns {missing} were not read again; the rebuild cannot be committed")
        head = self._path(plan.head)
        self._keep_shared(head)
        old = {number: agent.kept[number].turn for number in [*plan.gone, *plan.todo]}
        living = [number for number in plan.gone if not old[number].forgotten]
        tokens = sum(old[number].stop - old[number].start for number in living)
        moved: dict[str, str | None] = {old[number].state_id: None for number in plan.gone}
        moved |= {old[number].state_id: self._staged[number].turn.state_id for number in plan.todo}
        agent.moved = {a: moved.get(b, b) if b is not None else None for a, b in agent.moved.items()} | moved
        for number in plan.gone:
            del agent.kept[number]
        agent.kept.update(self._staged)
        agent.head = plan.head
        self.note_dropped(reason, living, tokens)
        self.drop_rebuild()
        self._grip.stand(head)
        self._grip.keep_digests(head[-1] if head else None)
        self._grip.set_open(False)
        return tokens

    def drop_rebuild(self) -> None:
        """The store's ``abort`` came, or the commit: nothing is staged."""
        self._plan, self._staged = None, {}

    def _kept(self, turn_id: int) -> KeptTurn:
        if turn_id not in self._agent.kept:
            raise StateNotFoundError(f"there is no turn {turn_id}; see the history for those there are")
        return self._agent.kept[turn_id]

    def _open_plan(self) -> RebuildPlan:
        self._grip.require_open()
        if self._plan is None:
            raise StoreError("there is no open rebuild; call begin_rebuild() first")
        return self._plan

    def _path(self, number: int | None) -> list[KeptTurn]:
        """The turns from the root to one, as the rebuilt tree has them."""
        path = []
        while number is not None:
            path.append(self._staged.get(number) or self._agent.kept[number])
            number = path[-1].turn.parent
        return path[::-1]

    def _keep_shared(self, path: Sequence[KeptTurn]) -> None:
        own = self._grip.path()
        shared = [one for one, other in zip(path, own, strict=False) if one is other]
        if len(path) != len(own) or len(shared) < len(own):
            self._grip.keep_digests(shared[-1] if shared else None)

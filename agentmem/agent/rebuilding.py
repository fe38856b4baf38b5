"""Rebuilding a memory without some of its turns: all later ones are read again, as if those had never been.

What was decoded is read like any other token now, so the result equals an agent that was given the remaining turns
to read, bit for bit where their chunks are the same. Turns before the first one that goes stay untouched. Knows the
store's records and the engine's sessions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentmem.agent.in_force import InForce
from agentmem.agent.provenance import Admission
from agentmem.agent.rejoining import rejoined
from agentmem.agent.state_id import settings_of, state_id
from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.engine.session import Progress
from agentmem.memory.blocks import joined_ranges
from agentmem.store.base import Store, Turn
from agentmem.store.rebuild_plan import RebuildPlan, plan_rebuild
from agentmem.store.upkeep import Reason, Rewritten


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild did."""

    states: Mapping[str, str]
    """Old state ids -> those of the rebuilt turns."""
    tokens_prefilled: int


def tokens_to_read(store: Store, gone: Sequence[int]) -> int:
    """About how many tokens a rebuild without these turns would read: the ends are joined anew."""
    turns, todo = store.every_turn(), set(_plan(store, gone).todo)
    return sum(turn.stop - turn.start for turn in turns if turn.id in todo)


def rebuild(
    store: Store,
    model: LanguageModel | None,
    config: MemoryConfig,
    gone: Sequence[int],
    reason: Reason,
    on_progress: Progress | None,
) -> Rebuilt:
    """Rebuild without ``gone``. Any error leaves the memory as it was. ``model`` None: nothing is to be read."""
    reading = _Reading(store, config, _plan(store, gone))
    done, total = 0, tokens_to_read(store, gone)
    store.upkeep.begin_rebuild(gone)
    try:
        for number in reading.plan.todo:
            assert model is not None, "only a rebuild that leaves nothing to read goes without"
            done += reading.read_again(number, model)
            if on_progress is not None:
                on_progress(done, total)
        store.upkeep.commit_rebuild(reason)
    except BaseException:
        store.abort()
        raise
    return Rebuilt(reading.states, reading.tokens_read)


class _Reading:
    """The turns of one rebuild, one after the other: parents come before children."""

    def __init__(self, store: Store, config: MemoryConfig, plan: RebuildPlan) -> None:
        self.plan = plan
        self._store = store
        self._config = config
        self._admission = Admission.standing(store)
        self._old = {turn.id: turn for turn in store.every_turn()}
        self._made: dict[int, Rewritten] = {}
        self._spans: dict[int, tuple[int, int]] = {}

    @property
    def states(self) -> dict[str, str]:
        """Old state ids -> new ones."""
        return {self._old[number].state_id: new.state_id for number, new in self._made.items()}

    @property
    def tokens_read(self) -> int:
        """Tokens that went through the model."""
        return sum(len(new.token_ids) for new in self._made.values())

    def read_again(self, number: int, model: LanguageModel) -> int:
        """Read a turn behind what now comes before it, and stage it; returns the tokens it had."""
        store, config, turn, parent = self._store, self._config, self._old[number], self.plan.parents[number]
        before = None if parent is None else self._old[parent]
        ids = rejoined(model.template, config, turn, store.upkeep.ids_of(number), self._behind(turn), before)
        store.upkeep.stand_before(number)
        self._spans[number] = (store.log.committed, store.log.committed + len(ids))
        hidden = self._hidden(parent)
        with model.turn(store.log, store.digests, config, hidden=hidden) as session:
            if ids:
                session.read(ids)
            session.memory.flush()
        settings = settings_of(config, hidden)
        name = state_id(
            parent=self._state(parent),
            uuid=store.identity.uuid,
            token_ids=ids,
            pending=turn.pending,
            settings={**settings, "read_again": True},
            fingerprint=store.identity.fingerprint,
        )
        in_force = InForce.moved(turn.settings, lambda token: self._place(token, turn)).to_settings()
        receipt = {
            **turn.receipt,
            **({"blocks": []} if "blocks" in turn.receipt else {}),
        }  # positions have moved
        self._made[number] = Rewritten(number, name, ids, {**settings, **in_force}, receipt)
        store.upkeep.stage(self._made[number])
        return turn.stop - turn.start

    def _behind(self, turn: Turn) -> list[Turn]:
        """The turns a turn was written behind, nearest first, up to one that says what it left."""
        found: list[Turn] = []
        at = turn.parent
        while at is not None and (not found or found[-1].forgotten):
            found.append(self._old[at])
            at = self._old[at].parent
        return found

    def _hidden(self, parent: int | None) -> list[tuple[int, int]]:
        """The tokens up to the end of a turn that are not to be attended to: those in quarantine."""
        found = []
        while parent is not None:
            turn = self._old[parent]
            if not turn.forgotten and not self._admission.admits(turn):
                found.append(self._spans.get(parent, (turn.start, turn.stop)))
            parent = self.plan.parents.get(parent, turn.parent)
        return joined_ranges(found)

    def _state(self, number: int | None) -> str | None:
        if number is None:
            return None
        return self._made[number].state_id if number in self._made else self._old[number].state_id

    def _place(self, token: int, turn: Turn) -> int | None:
        """Where the turn that began at a token, on the way to this one, begins now; None: it is gone."""
        at: Turn | None = turn
        while at is not None:
            if at.start == token and at.id not in self.plan.gone:
                return self._spans.get(at.id, (token, 0))[0]
            at = None if at.parent is None else self._old[at.parent]
        return None


def _plan(store: Store, gone: Sequence[int]) -> RebuildPlan:
    head = store.head
    return plan_rebuild(store.every_turn(), gone, None if head is None else head.id)

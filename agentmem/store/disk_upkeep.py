"""Upkeep of an agent on disk: pins, expiries, the audit, and rebuilding. See :class:`agentmem.store.upkeep.Upkeep`.

Checks that what is asked for may be done now, and leaves the doing to the tables and to :mod:`rebuilding`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agentmem.errors import StateForgottenError, StoreError
from agentmem.store.access import Access
from agentmem.store.forgetting import Eraser
from agentmem.store.parts import Standing, StoreParts
from agentmem.store.rebuild_plan import plan_rebuild
from agentmem.store.rebuilding import Rebuild
from agentmem.store.upkeep import AuditRow, Reason, Rewritten, TurnMarks


class DiskUpkeep:
    """Of one open agent."""

    def __init__(self, parts: StoreParts, at: Standing, access: Access, eraser: Eraser) -> None:
        self._parts = parts
        self._at = at
        self._access = access
        self._eraser = eraser
        self._rebuild: Rebuild | None = None

    @property
    def erasure_due(self) -> bool:
        """Whether forgotten text still lies in files because a reader holds them."""
        return self._eraser.due

    def ids_of(self, turn_id: int) -> list[int]:
        """Token ids of one turn of any branch; -1 for forgotten ones. Raises StateNotFoundError."""
        return self._parts.turns.ids_of(turn_id)

    def marks(self) -> Mapping[int, TurnMarks]:
        """Turns that expire or are pinned."""
        return self._parts.upkeep.marks()

    def pin(self, turn_id: int, *, pinned: bool) -> None:
        """Let retention never drop a turn, or let it again. Raises StateNotFoundError, StateForgottenError."""
        self._access.require_writer("pin")
        if self._parts.turns.get(turn_id).forgotten:
            raise StateForgottenError(f"turn {turn_id} was forgotten; there is nothing left to pin")
        with self._parts.index.transaction():
            self._parts.upkeep.set_pin(turn_id, pinned=pinned)

    def audit(self) -> list[AuditRow]:
        """What was dropped from this agent, oldest first."""
        return self._parts.upkeep.audit()

    def begin_rebuild(self, turn_ids: Sequence[int]) -> list[int]:
        """Open a rebuild without these turns; returns those to be read again."""
        self._access.require_writer("rebuild")
        if self._parts.slots.set_aside():
            raise StoreError(
                f"agent {self._parts.agent_id!r}: damaged tokens are set aside; repair it with its model before a rebuild"
            )
        for turn_id in turn_ids:
            self._parts.turns.get(turn_id)
        self._eraser.finish_begun()  # checksums that are still to come true must not be computed with
        plan = plan_rebuild(self._parts.turns.every(), turn_ids, self._at.head_id)
        self._rebuild = Rebuild(self._parts, self._at, plan)
        self._at.log.begin()
        self._access.turn_open = True
        return list(plan.todo)

    def stand_before(self, turn_id: int) -> None:
        """Stand where the turn before this one ends in the rebuilt memory."""
        self._open_rebuild().stand_before(turn_id)

    def stage(self, rewritten: Rewritten) -> None:
        """The tokens appended since ``stand_before`` are this turn's. Raises InputError."""
        self._open_rebuild().stage(rewritten)

    def commit_rebuild(self, reason: Reason) -> int:
        """Put what was staged into the place of what there was, all at once; returns the tokens dropped.

        Raises:
            DamagedError, StoreError: nothing has changed; or it is committed, and the message says what is left.
        """
        rebuild = self._open_rebuild()
        tokens = rebuild.commit(self._eraser, reason)
        self._rebuild, self._access.turn_open = None, False
        rebuild.clear(self._eraser)
        return tokens

    def drop_rebuild(self) -> None:
        """The store's ``abort`` came: nothing of it counts."""
        self._rebuild = None

    def _open_rebuild(self) -> Rebuild:
        self._access.require_process()
        if self._rebuild is None:
            raise StoreError("there is no open rebuild; call begin_rebuild() first")
        return self._rebuild

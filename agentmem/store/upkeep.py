"""What keeps a memory in order beside its turns: pins, expiries, an audit, and rebuilding. Records and a protocol.

Both stores have one (``store.upkeep``). Knows no model: who reads the turns of a rebuild again is the caller's affair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Reason:
    """Why something is dropped, for the audit: never the text itself, nor the name of a source."""

    what: str
    """"forget", "rebuild" or "retention"."""
    why: str
    """Which conditions were given, such as "match, before"."""
    at: str
    """ISO 8601 with offset; for people, never for logic."""


@dataclass(frozen=True)
class AuditRow:
    """One thing that was dropped: what, when, why, and how much of it; nothing of what it said."""

    what: str
    why: str
    at: str
    turns: Sequence[int]
    tokens: int


@dataclass(frozen=True)
class TurnMarks:
    """What is noted of a turn for retention. A turn without marks never expires and is not pinned."""

    expires_at: str | None = None
    """ISO 8601 with offset."""
    pinned: bool = False


@dataclass(frozen=True)
class Rewritten:
    """A turn of a rebuild after it was read again: what of it is new. Its words and its number stay."""

    turn: int
    state_id: str
    token_ids: Sequence[int]
    settings: Mapping[str, Any]
    receipt: Mapping[str, Any]


class Upkeep(Protocol):
    """See :class:`agentmem.store.base.Store`; every change is all or nothing, and raises what the store's verbs do."""

    @property
    def erasure_due(self) -> bool:
        """Whether forgotten text still lies in files because a reader holds them; the next opening finishes it."""
        ...

    def ids_of(self, turn_id: int) -> list[int]:
        """Token ids of one turn of any branch; -1 for forgotten ones. Raises StateNotFoundError."""
        ...

    def marks(self) -> Mapping[int, TurnMarks]:
        """Turns that expire or are pinned."""
        ...

    def pin(self, turn_id: int, *, pinned: bool) -> None:
        """Let retention never drop a turn, or let it again. Raises StateNotFoundError, StateForgottenError."""
        ...

    def audit(self) -> list[AuditRow]:
        """What was dropped from this agent, oldest first."""
        ...

    def begin_rebuild(self, turn_ids: Sequence[int]) -> list[int]:
        """Open a rebuild without these turns, and without those forgotten before.

        Returns the living turns that come after one of them, on any branch, parents first: each is to be read
        again, in this order, by ``stand_before``, appending to the log, and ``stage``. Until
        ``commit_rebuild`` nothing has changed; ``Store.abort`` drops it all.

        Raises:
            ReadOnlyError, StaleWriterError, StateNotFoundError: nothing has changed.
        """
        ...

    def stand_before(self, turn_id: int) -> None:
        """Stand where the turn before this one ends in the rebuilt memory; log and digests go on from there."""
        ...

    def stage(self, rewritten: Rewritten) -> None:
        """The tokens appended since ``stand_before`` are this turn's. Raises InputError."""
        ...

    def commit_rebuild(self, reason: Reason) -> int:
        """Put what was staged into the place of what there was, all at once; returns the tokens dropped.

        Old state ids lead to the rebuilt turns, those of dropped turns to StateForgottenError. The old keys and
        values are overwritten.
        """
        ...

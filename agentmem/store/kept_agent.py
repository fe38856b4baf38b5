"""What an in-memory agent is between openings: its turns with their K/V, its head, and who may write.

Knows no opening; those are :class:`agentmem.store.in_memory_store.InMemoryStore`.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

from torch import Tensor

from agentmem.errors import AgentBusyError, InputError
from agentmem.memory.source import RuleState
from agentmem.store.base import AgentIdentity, Json, NewTurn, Turn
from agentmem.store.origins import default_trust, role_of
from agentmem.store.upkeep import AuditRow, TurnMarks


@dataclass
class KeptTurn:
    """A turn with its ids, its K/V per layer (Hkv, T, D), how many digests there were, and its rule's state."""

    turn: Turn
    ids: list[int]
    keys: list[Tensor]
    values: list[Tensor]
    digest_kind: str | None
    digest_count: int
    state: RuleState | None = None


@dataclass
class KeptAgent:
    """Everything an agent is between openings. ``digests``: per layer (Hkv, n, D), or none at all."""

    identity: AgentIdentity
    kept: dict[int, KeptTurn] = field(default_factory=dict)
    head: int | None = None
    next_id: int = 1
    notes: dict[str, str] = field(default_factory=dict)
    digest_kind: str | None = None
    digests: list[Tensor] = field(default_factory=list)
    locked: bool = False
    epoch: int = 0
    """How many writers have opened it; one that was passed over is out of date."""
    deleted: bool = False
    marks: dict[int, TurnMarks] = field(default_factory=dict)
    audit: list[AuditRow] = field(default_factory=list)
    moved: dict[str, str | None] = field(default_factory=dict)
    """Old state ids -> those of the rebuilt turns; None: forgotten."""

    def take(self, wait: float) -> None:
        """Take the right to write. Raises AgentBusyError."""
        deadline = time.monotonic() + wait
        while self.locked and time.monotonic() < deadline:
            time.sleep(0.01)
        self.require_free()
        self.locked = True

    def require_free(self) -> None:
        """Raises AgentBusyError."""
        if self.locked:
            raise AgentBusyError(
                f"agent {self.identity.agent_id!r} is held by another writer; close it there"
            )

    def path(self, head: int | None) -> list[KeptTurn]:
        """The turns from the root to a head."""
        found: list[KeptTurn] = []
        while head is not None:
            found.append(self.kept[head])
            head = self.kept[head].turn.parent
        return found[::-1]


def json_text(value: Json) -> str:
    """A value as JSON text. Raises InputError when it is not plain JSON."""
    try:
        return json.dumps(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"cannot be stored as JSON: {error}") from error


def turn_of(turn_id: int, parent: Turn | None, turn: NewTurn) -> Turn:
    """The record of a new turn. Raises InputError when a field is not plain JSON."""
    start = 0 if parent is None else parent.stop
    role = turn.role or role_of(turn.messages)
    return Turn(
        id=turn_id,
        parent=None if parent is None else parent.id,
        start=start,
        stop=start + len(turn.token_ids),
        state_id=turn.state_id,
        kind=turn.kind,
        messages=json.loads(json_text(list(turn.messages))),
        pending=json.loads(json_text(turn.pending)),
        created_at=turn.created_at,
        source=turn.source,
        part=turn.part,
        settings=json.loads(json_text(dict(turn.settings))),
        receipt=json.loads(json_text(dict(turn.receipt))),
        role=role,
        trust=turn.trust or default_trust(role),
    )

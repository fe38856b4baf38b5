"""Agents of one process, kept in memory: nothing survives it, and nothing needs cleaning up.

Knows no files and no SQLite.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from agentmem.errors import AgentExistsError, AgentNotFoundError, StaleWriterError
from agentmem.memory.source import KVLayout
from agentmem.store.base import AgentIdentity, AgentInfo, Json
from agentmem.store.in_memory_store import InMemoryStore
from agentmem.store.kept_agent import KeptAgent, json_text
from agentmem.store.mended import RepairReport, SalvageReport
from agentmem.store.names import checked_id


class InMemoryHome:
    """Agents of one process. See :class:`agentmem.store.base.Home`."""

    def __init__(self) -> None:
        self._agents: dict[str, KeptAgent] = {}
        self._workshops: dict[str, InMemoryHome] = {}

    def exists(self, agent_id: str) -> bool:
        """Whether there is such an agent."""
        return checked_id(agent_id) in self._agents

    def create(
        self,
        agent_id: str,
        *,
        fingerprint: Mapping[str, str],
        layout: KVLayout,
        model: str,
        facts: Mapping[str, Json],
        wait: float = 0.0,
    ) -> InMemoryStore:
        """Make a new, empty agent and open it. Raises AgentExistsError, InputError."""
        name = checked_id(agent_id)
        self._require_absent(name)
        facts = json.loads(json_text(dict(facts)))
        created_at = datetime.now(UTC).isoformat(timespec="seconds")
        identity = AgentIdentity(name, uuid.uuid4().hex, created_at, dict(fingerprint), layout, model, facts)
        self._agents[name] = KeptAgent(identity)
        return self.open(name, wait=wait)

    def open(self, agent_id: str, *, wait: float = 0.0, read_only: bool = False) -> InMemoryStore:
        """Open an agent. Raises AgentNotFoundError, AgentBusyError."""
        agent = self._require(agent_id)
        if not read_only:
            agent.take(wait)
            agent.epoch += 1
        return InMemoryStore(agent, read_only=read_only)

    def peek(self, agent_id: str) -> AgentIdentity:
        """Who that is, without the lock. Raises AgentNotFoundError."""
        return self._require(agent_id).identity

    def fork(self, agent_id: str, new_id: str) -> None:
        """A new agent with the same past."""
        source, name = self._require(agent_id), checked_id(new_id)
        self._require_absent(name)
        identity = replace(source.identity, agent_id=name, uuid=uuid.uuid4().hex)
        self._agents[name] = replace(
            source,
            epoch=0,
            identity=identity,
            kept={turn_id: replace(kept) for turn_id, kept in source.kept.items()},
            notes=dict(source.notes),
            digests=list(source.digests),
            marks=dict(source.marks),
            audit=list(source.audit),
            moved=dict(source.moved),
            locked=False,
        )

    def salvage(self, agent_id: str, *, dry_run: bool = False) -> SalvageReport:
        """Nothing can be wrong with memory."""
        agent = self._require(agent_id)
        agent.require_free()
        return SalvageReport(dry_run, [], sorted(agent.kept), repair=RepairReport(dry_run, []))

    def find(self, agent_id: str) -> KeptAgent:
        """What is kept of an agent. Raises AgentNotFoundError."""
        return self._require(agent_id)

    def workshop(self, agent_id: str) -> InMemoryHome:
        """A home out of sight, where new agents are made from this one; gone with it."""
        return self._workshops.setdefault(checked_id(agent_id), InMemoryHome())

    def put_in_place(self, agent_id: str, new_id: str, *, over: tuple[str, str | None] | None = None) -> None:
        """Move agent ``new_id`` from the workshop of ``agent_id`` here; see the protocol."""
        name = checked_id(new_id)
        draft = self.workshop(agent_id).find(name)
        draft.require_free()
        if over is None:
            self._require_absent(name)
        else:
            old = self._require(name)
            old.require_free()
            path = old.path(old.head)
            if (old.identity.uuid, path[-1].turn.state_id if path else None) != over:
                raise StaleWriterError(
                    f"agent {name!r} was changed meanwhile, so it was not replaced; do it again"
                )
            old.deleted = True
        self._agents[name] = draft
        self.clear_workshop(agent_id)

    def clear_workshop(self, agent_id: str) -> None:
        """Remove unfinished agents that were being made from this one."""
        self._workshops.pop(checked_id(agent_id), None)

    def list(self) -> list[AgentInfo]:
        """Every agent, most recently used first."""
        rows = [_info(agent) for agent in self._agents.values()]
        return sorted(rows, key=lambda info: info.last_used or info.created_at, reverse=True)

    def delete(self, agent_id: str) -> None:
        """Remove an agent. Raises AgentNotFoundError, AgentBusyError."""
        agent = self._require(agent_id)
        agent.require_free()
        agent.deleted = True
        del self._agents[checked_id(agent_id)]
        self.clear_workshop(agent_id)

    def _require(self, agent_id: str) -> KeptAgent:
        name = checked_id(agent_id)
        if name not in self._agents:
            raise AgentNotFoundError(f"there is no agent {name!r} in this home")
        return self._agents[name]

    def _require_absent(self, name: str) -> None:
        if name in self._agents:
            raise AgentExistsError(f"there is an agent {name!r} already; open it, or choose another name")


def _info(agent: KeptAgent) -> AgentInfo:
    path, identity = agent.path(agent.head), agent.identity
    tokens = path[-1].turn.stop if path else 0
    return AgentInfo(
        identity.agent_id,
        len(path),
        tokens,
        sum(len(kept.ids) for kept in agent.kept.values()) * identity.layout.bytes_per_token,
        identity.created_at,
        path[-1].turn.created_at if path else None,
        identity.model,
    )

"""Writing other models' conversations into an agent's memory: what is new of them, as one turn each, or an error kept.

The calls of one root run become one turn. Knows nothing of LangChain's events.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from agentmem import AgentMemory, ConfigError, TemplateError
from langchain_agentmem.agent_access import AgentAccess
from langchain_agentmem.call_recorder import ModelCall
from langchain_agentmem.conversation import Said
from langchain_agentmem.foreign_messages import read_leniently
from langchain_agentmem.known_messages import KnownMessages
from langchain_agentmem.tool_style import key_of, told, tool_style

OnError = Literal["warn", "raise"]
_LOG = logging.getLogger("langchain_agentmem")
ERRORS_KEPT = 1000
"""The newest errors that are kept, in a process that runs for months."""
_FIRST_LOOK = 8
"""Turns read to see what others added to the memory; more when they do not reach back far enough."""


@dataclass(frozen=True)
class NotRecorded:
    """A turn that did not get into the memory, and why."""

    agent_id: str
    messages: Sequence[Mapping[str, Any]]
    """What was to be written, as ``AgentMemory.append`` takes it; empty if it could not be read."""
    error: Exception

    def __str__(self) -> str:
        what = f"{len(self.messages)} messages" if self.messages else "the messages"
        return f"agent {self.agent_id!r}: {what} of a chain were not recorded: {self.error!r}"


class MemoryFeed:
    """Writes finished calls, one writer at a time. Threads may share it.

    Args:
        access: the agent.
        on_error: "warn": log what went wrong; "raise": raise it as well. It is kept in ``errors`` either way.
    """

    def __init__(self, access: AgentAccess, on_error: OnError) -> None:
        if on_error not in {"warn", "raise"}:
            raise ConfigError(f"on_error={on_error!r}: use 'warn' or 'raise'")
        self._access = access
        self._on_error = on_error
        self._lock = threading.Lock()
        self._known = KnownMessages()
        self._known_at: str | None = None
        self.errors: list[NotRecorded] = []
        self.last_state_id: str | None = None

    @property
    def agent_id(self) -> str:
        """The agent that is fed."""
        return self._access.agent_id

    def write(self, calls: Sequence[ModelCall]) -> None:
        """Append what is new in the calls as one turn; nothing new, nothing written.

        Raises:
            Exception: what went wrong, with ``on_error="raise"``.
        """
        foreign = [call for call in calls if not _is_own(call, self.agent_id)]
        new: list[Said] = []
        with self._lock:
            try:
                if foreign:
                    self._write(foreign, new)
            except BaseException as error:
                self._known, self._known_at = KnownMessages(), None  # nothing of this is held: read it anew
                if not isinstance(error, Exception):
                    raise
                self.lost(NotRecorded(self.agent_id, [said.message for said in new], error))
                if self._on_error == "raise":
                    raise

    def lost(self, turn: NotRecorded) -> None:
        """Report a turn that was not recorded: keep it, and log it."""
        self.errors.append(turn)
        del self.errors[:-ERRORS_KEPT]
        _LOG.warning("%s", turn)

    def _write(self, calls: Sequence[ModelCall], new: list[Said]) -> None:
        with self._access.writing() as memory:
            self._catch_up(memory)
            for call in calls:
                listed = read_leniently(call.question.messages, call.question.thread)
                new += self._known.news(listed, read_leniently([call.answer], call.question.thread))
            if new:
                _append(memory, new)
                self._known_at = self.last_state_id = memory.checkpoint()

    def _catch_up(self, memory: AgentMemory) -> None:
        """Know what the memory holds; reads only the turns that others made since the last time."""
        head = memory.checkpoint()
        if head == self._known_at:
            return
        key = key_of(tool_style(memory.language_model))
        limit = _FIRST_LOOK
        while True:
            turns = memory.history(limit=limit)
            states = [turn.state_id for turn in turns]
            if self._known_at in states:
                self._known.hold(turns[states.index(self._known_at) + 1 :], key)
                break
            if len(turns) < limit:
                self._known = KnownMessages()
                self._known.hold(turns, key)
                break
            limit *= 4
        self._known_at = head


def _is_own(call: ModelCall, agent_id: str) -> bool:
    """Whether the answer came out of this very memory, which then holds it already, or was told not to."""
    ours = call.answer.response_metadata.get("agentmem")
    return isinstance(ours, Mapping) and ours.get("agent_id") == agent_id


def _append(memory: AgentMemory, new: Sequence[Said]) -> None:
    """Write the messages as the template writes them; what a strict one refuses, in words."""
    style = tool_style(memory.language_model)
    try:
        memory.append([told(said, style) for said in new])
    except TemplateError:  # such as a call that nothing answered
        if not style.native:
            raise
        in_words = replace(style, native=False, result_role=False)
        memory.append([told(said, in_words) for said in new])

"""What an agent's memory holds, message by message, read once and kept up to date between calls.

Turns :meth:`AgentMemory.history` into records for the planner. How a message is known again is handed in, so nothing
is known here of tools or templates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from agentmem import AgentMemory, HistoryTurn
from agentmem.errors import HistoryChangedError, StateForgottenError, StateNotFoundError
from langchain_agentmem.conversation import ORIGIN
from langchain_agentmem.held import Held, Said
from langchain_agentmem.instructions import MADE
from langchain_agentmem.reconcile import Plan, Policies, plan

__all__ = ["Held", "KeyOf", "Transcript", "plan_on"]

KeyOf = Callable[[Mapping[str, Any]], str]
"""A held message -> its key, equal to the key of a caller's message that says the same."""

_FIRST_LOOK = 2
"""Turns read at first to find the newest known one: it and the turn made since."""
_WIDER = 8


class Transcript:
    """The messages of a memory's current branch. Instructions that this package wrote are left out."""

    def __init__(self, key_of: KeyOf) -> None:
        self.held: list[Held] = []
        """Oldest first."""
        self._key_of = key_of
        self._head: str | None = None
        self._turns: dict[int, tuple[int, str]] = {}
        """Turn -> (number of messages held up to its end, the state there), in order."""

    @classmethod
    def of(cls, memory: AgentMemory, key_of: KeyOf) -> Transcript:
        """Read the whole branch."""
        transcript = cls(key_of)
        transcript.reread(memory)
        return transcript

    def refresh(self, memory: AgentMemory) -> None:
        """Follow the head: reads the turns made since, back to the newest one that is known.

        What was *forgotten* meanwhile is not noticed unless the head moved; see :func:`plan_on`.
        """
        head = memory.checkpoint()
        if head == self._head:
            return
        look = _FIRST_LOOK
        while head is not None and self._turns:
            turns = memory.history(limit=look)
            known = next((at for at in range(len(turns) - 1, -1, -1) if turns[at].turn in self._turns), None)
            if known is not None:
                self._cut_after(turns[known].turn)
                self._extend(turns[known + 1 :])
                return
            if len(turns) < look:
                break
            look *= _WIDER
        self.reread(memory)

    def reread(self, memory: AgentMemory) -> None:
        """Read the whole branch anew, with what was forgotten meanwhile."""
        self.held = []
        self._turns = {}
        self._head = None
        self._extend(memory.history())

    def lookup(self, memory: AgentMemory, state_id: str) -> Sequence[Held] | Literal["forgotten"] | None:
        """What the branch that ends at a state holds; "forgotten"; None: no state of this agent."""
        try:
            turns = memory.history(at=state_id)
        except StateForgottenError:
            return "forgotten"
        except StateNotFoundError:
            return None
        branch = Transcript(self._key_of)
        branch._extend(turns)
        return branch.held

    def _extend(self, turns: Sequence[HistoryTurn]) -> None:
        for turn in turns:
            self.held += _held(turn, self._head, self._key_of)
            self._head = turn.state_id
            self._turns[turn.turn] = (len(self.held), turn.state_id)

    def _cut_after(self, turn: int) -> None:
        """Drop what comes after a turn."""
        count, self._head = self._turns[turn]
        del self.held[count:]
        while next(reversed(self._turns)) != turn:
            self._turns.popitem()


def plan_on(
    transcript: Transcript,
    memory: AgentMemory,
    said: Sequence[Said],
    *,
    thread: str | None,
    policies: Policies | None = None,
) -> Plan:
    """A plan made on what the memory holds now.

    Forgetting moves no head, so the transcript may not know of it. Going on at the head does not depend on
    that; before going back, or refusing a list, everything is read once more.

    Raises:
        InputError, HistoryChangedError: see :func:`langchain_agentmem.reconcile.plan`.
    """

    def planned() -> Plan:
        return plan(
            transcript.held,
            said,
            thread=thread,
            lookup=lambda state: transcript.lookup(memory, state),
            policies=policies,
        )

    transcript.refresh(memory)
    try:
        found = planned()
    except HistoryChangedError:
        found = None
    if found is not None and found.after == "head":
        return found
    transcript.reread(memory)
    return planned()


def _held(turn: HistoryTurn, parent: str | None, key_of: KeyOf) -> list[Held]:
    """The records of one turn."""
    if turn.forgotten:
        gone = Held("", None, turn.state_id, parent, None, turn.turn, False, False, "", forgotten=True)
        return [gone]
    kept = [message for message in turn.messages if MADE not in _metadata(message)]
    listed = [_metadata(message) for message in kept if _metadata(message).get("origin") == ORIGIN]
    thread = listed[0].get("thread") if listed else None
    last = len(kept) - 1
    return [
        Held(
            key=key_of(message),
            id=_metadata(message).get("id"),
            state_id=turn.state_id if place == last else None,
            parent=parent,
            thread=thread,
            turn=turn.turn,
            ours=turn.kind == "chat" and place == last and message["role"] == "assistant",
            listed=bool(listed),
            role=message["role"],
        )
        for place, message in enumerate(kept)
    ]


def _metadata(message: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = message.get("metadata") or {}
    return found

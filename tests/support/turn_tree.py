"""A memory's turns as plain records, without a model: what the planner of the LangChain adapter plans on.

Does to the records what :class:`agentmem.AgentMemory` does to an agent: a turn goes on from a state of any branch
and moves the head; forgetting empties a turn in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from langchain_agentmem.held import Held
from langchain_agentmem.reconcile import Plan, Policies, plan


@dataclass(frozen=True)
class Line:
    """One message of a caller's list."""

    role: str
    text: str
    id: str | None = None
    state_id: str | None = None

    @property
    def message(self) -> Mapping[str, Any]:
        """As the memory takes it."""
        return {"role": self.role, "content": self.text}

    @property
    def key(self) -> str:
        """Role and text."""
        return f"{self.role}: {self.text}"

    @property
    def blank(self) -> bool:
        """An answer without words."""
        return self.role == "assistant" and not self.text


def human(text: str, id: str | None = None) -> Line:  # noqa: A002 - as LangChain's messages name it
    """What a user says."""
    return Line("user", text, id)


def ai(text: str, state_id: str | None = None) -> Line:
    """An answer, stamped with the state after it if it is one of ours."""
    return Line("assistant", text, None, state_id)


def plain(lines: Sequence[Line]) -> list[Line]:
    """The same messages without ids and stamps, as strings would arrive."""
    return [Line(line.role, line.text) for line in lines]


class TurnTree:
    """One agent's turns. States are named s1, s2, ... in the order they are made."""

    def __init__(self) -> None:
        self.head: str | None = None
        self._turns: dict[str, list[Held]] = {}

    @property
    def held(self) -> list[Held]:
        """The messages of the current branch."""
        return self.branch(self.head)

    def branch(self, state: str | None) -> list[Held]:
        """The messages up to a state."""
        found: list[list[Held]] = []
        while state is not None:
            found.append(self._turns[state])
            state = self._turns[state][0].parent
        return [one for turn in reversed(found) for one in turn]

    def lookup(self, state: str) -> list[Held] | Literal["forgotten"] | None:
        """As :meth:`langchain_agentmem.transcript.Transcript.lookup`."""
        if state not in self._turns:
            return None
        return "forgotten" if self._turns[state][0].forgotten else self.branch(state)

    def plan(self, said: Sequence[Line], *, thread: str | None = None, **policies: Any) -> Plan:
        """What is new in a list."""
        return plan(self.held, said, thread=thread, lookup=self.lookup, policies=Policies(**policies))

    def turn(
        self,
        lines: Sequence[Line],
        *,
        thread: str | None = None,
        after: str | None = "head",
        answered: bool = True,
        listed: bool = True,
    ) -> str:
        """Commit a turn; returns its state. A forgotten state cannot be gone on from, except at the head."""
        assert after in {None, "head"} or not self._turns[str(after)][0].forgotten
        parent = self.head if after == "head" else after
        state = f"s{len(self._turns) + 1}"
        last = len(lines) - 1
        self._turns[state] = [
            Held(
                key=line.key,
                id=line.id,
                state_id=state if place == last else None,
                parent=parent,
                thread=thread,
                turn=len(self._turns) + 1,
                ours=answered and place == last,
                listed=listed,
                role=line.role,
            )
            for place, line in enumerate(lines)
        ]
        self.head = state
        return state

    def say(self, said: Sequence[Line], answer: str, *, thread: str | None = None, **policies: Any) -> Line:
        """Do what a chat model does with a list: plan, read what is new, answer. Returns the stamped answer."""
        chosen = self.plan(said, thread=thread, **policies)
        if not chosen.remember:
            return ai(answer)
        return self.follow(chosen, said, answer, thread=thread)

    def follow(self, chosen: Plan, said: Sequence[Line], answer: str, *, thread: str | None = None) -> Line:
        """Carry out a plan."""
        new = [said[place] for place in chosen.new]
        state = self.turn([*new, ai(answer)], thread=thread, after=chosen.after)
        return ai(answer, state)

    def forget(self, state: str) -> None:
        """Empty a turn."""
        first = self._turns[state][0]
        gone = replace(first, key="", id=None, state_id=state, thread=None, ours=False, listed=False, role="")
        self._turns[state] = [replace(gone, forgotten=True)]

    def said_in(self, thread: str | None) -> list[str]:
        """The keys of a thread's messages on the current branch."""
        return [one.key for one in self.held if one.listed and one.thread == thread]

"""Which messages a memory holds already, although chains send the whole history again with every call.

Messages form a tree: each stands behind the one before it in its own conversation, so that conversations that
share an agent stay apart and a question that is asked again after the same answer is told from a new one. Pure:
no memory, no template; told what is held, asked what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agentmem import HistoryTurn
from langchain_agentmem.conversation import Said

BEHIND = "behind"
"""Noted with a new message: the key of the one it stands behind in its own conversation; empty for a first one."""


@dataclass(eq=False)
class Known:
    """One message that is held."""

    key: str
    id: str | None
    before: Known | None
    after: list[Known] = field(default_factory=list, repr=False)


class KnownMessages:
    """The messages of one agent. Not for several threads at once."""

    def __init__(self) -> None:
        self._by_id: dict[str, Known] = {}
        self._by_state: dict[str, Known] = {}
        self._by_key: dict[str, list[Known]] = {}
        self._systems: set[str] = set()
        self._last_of: dict[str | None, Known] = {}

    def hold(self, turns: Iterable[HistoryTurn], key_of: Callable[[Mapping[str, Any]], str]) -> None:
        """Take in turns that the memory holds, in their order; forgotten ones say nothing."""
        for turn in turns:
            for message in turn.messages:
                note = message.get("metadata") or {}
                key, thread = key_of(message), note.get("thread")
                if message["role"] == "system":
                    self._systems.add(key)
                    continue
                known = self._add(key, note.get("id"), self._before(note.get(BEHIND), thread))
                self._last_of[thread] = self._by_state[turn.state_id] = known

    def news(self, listed: Sequence[Said], answer: Sequence[Said]) -> list[Said]:
        """What of a call was not held, in order; from now on it is.

        Args:
            listed: everything the model was sent.
            answer: what it said; new, unless the same answer stands behind the same messages already.
        """
        new: list[Said] = []
        for said in [*listed, *answer]:
            if said.message["role"] == "system" and said.key not in self._systems:
                self._systems.add(said.key)
                new.append(said)
        spoken = [said for said in listed if said.message["role"] != "system"]
        last, tail = self._anchor(spoken)
        for said in tail:
            held = self._again(said, last)
            last = held or self._tell(said, last, new)
        for said in answer:
            held = None if last is None else next((one for one in last.after if one.key == said.key), None)
            last = held or self._tell(said, last, new)
        return new

    def _tell(self, said: Said, last: Known | None, new: list[Said]) -> Known:
        note = {**(said.message.get("metadata") or {}), BEHIND: "" if last is None else last.key}
        new.append(replace(said, message={**said.message, "metadata": note}))
        return self._add(said.key, said.id, last)

    def _before(self, behind: str | None, thread: str | None) -> Known | None:
        """What a held message stands behind: as it was noted, else the message before it in its thread."""
        if behind is None:
            return self._last_of.get(thread)
        held = self._by_key.get(behind)
        return held[-1] if held else None

    def _anchor(self, spoken: Sequence[Said]) -> tuple[Known | None, Sequence[Said]]:
        """The newest held answer of the list, and the messages behind it."""
        for place in range(len(spoken) - 1, -1, -1):
            said = spoken[place]
            if said.message["role"] == "assistant":
                held = self._held(said, spoken[place - 1].key if place else None)
                if held is not None:
                    return held, spoken[place + 1 :]
        return None, spoken

    def _held(self, said: Said, before: str | None) -> Known | None:
        """The newest held message that this answer is: by state, by id, else by its text and the one before it."""
        if said.state_id in self._by_state:
            return self._by_state[said.state_id]
        named = self._by_id.get(said.id or "")
        if named is not None and named.key == said.key:
            return named
        for known in reversed(self._by_key.get(said.key, ())):
            if before is None or known.before is None or known.before.key == before:
                return known
        return None

    def _again(self, said: Said, last: Known | None) -> Known | None:
        """The held message that this one repeats: the same id, or, behind a held answer, the same text."""
        named = self._by_id.get(said.id or "")
        if named is not None and named.key == said.key:
            return named
        if last is None:
            return None
        return next((one for one in last.after if one.key == said.key and _may_be(one, said)), None)

    def _add(self, key: str, message_id: str | None, before: Known | None) -> Known:
        known = Known(key, message_id, before)
        if before is not None:
            before.after.append(known)
        if message_id is not None:
            self._by_id[message_id] = known
        self._by_key.setdefault(key, []).append(known)
        return known


def _may_be(known: Known, said: Said) -> bool:
    """Two ids that differ are two messages."""
    return known.id is None or said.id is None or known.id == said.id

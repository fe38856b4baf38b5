"""Instructions that the adapter writes itself: the system prompt, tools in words, a schema to answer in.

Each is written once and stays in force until another takes its place, since the memory keeps it. Knows which are in
force at a state; knows nothing of how a model is told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agentmem import HistoryTurn

Made = Literal["system", "tools", "schema"]
MADE = "made"
"""The key in a message's metadata that says it was written here."""


@dataclass(frozen=True)
class Instruction:
    """One instruction, as text for the model."""

    made: Made
    text: str

    @property
    def digest(self) -> str:
        """What tells it from others of its kind."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def message(self) -> dict[str, Any]:
        """As a message for the memory."""
        return {
            "role": "system",
            "content": self.text,
            "metadata": {MADE: self.made, "digest": self.digest},
        }


def in_force(turns: Sequence[HistoryTurn]) -> dict[str, str]:
    """The newest instruction of each kind on a branch, by its digest; turns are oldest first."""
    found: dict[str, str] = {}
    for turn in reversed(turns):
        for message in reversed(turn.messages):
            made, digest = _made(turn.kind, message)
            if made:
                found.setdefault(made, digest)
    return found


def after_messages(before: Mapping[str, str], messages: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What is in force once these messages are held too."""
    marks = (message.get("metadata") or {} for message in messages)
    return {**before, **{mark[MADE]: mark["digest"] for mark in marks if MADE in mark}}


def due(wanted: Iterable[Instruction], force: Mapping[str, str]) -> list[Instruction]:
    """The instructions that are not in force yet."""
    return [instruction for instruction in wanted if force.get(instruction.made) != instruction.digest]


def _made(kind: str, message: Mapping[str, Any]) -> tuple[str, str]:
    """(kind, digest) of an instruction; a system prompt given to :class:`AgentMemory` counts as one."""
    mark = message.get("metadata") or {}
    if MADE in mark:
        return str(mark[MADE]), str(mark["digest"])
    if kind != "observe" and message["role"] == "system" and "origin" not in mark:
        return "system", Instruction("system", str(message["content"])).digest
    return "", ""

"""What the planner compares: messages that a memory holds, and messages that a caller says.

Small records and nothing else: no LangChain, no model, no store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class Held:
    """One message that the memory holds. A turn that was forgotten is one record without words."""

    key: str
    """What it is known by, as in :attr:`Said.key`; "" when it was forgotten."""
    id: str | None
    """The id it had in the caller's list."""
    state_id: str | None
    """The state after it; only the last message of a turn has one."""
    parent: str | None
    """The state before its turn; None before the first turn."""
    thread: str | None
    """The conversation its turn belongs to."""
    turn: int
    ours: bool
    """It is an answer of this memory's model."""
    listed: bool
    """Its turn came out of a caller's list, through this package."""
    role: str
    forgotten: bool = False


class Said(Protocol):
    """One message of a caller's list, as :class:`langchain_agentmem.conversation.Said` has it."""

    @property
    def message(self) -> Mapping[str, Any]:
        """With a role and a content."""
        ...

    @property
    def key(self) -> str:
        """Equal for messages that say the same."""
        ...

    @property
    def id(self) -> str | None:
        """LangChain's id of it."""
        ...

    @property
    def state_id(self) -> str | None:
        """The state it says it left, if it is an answer out of a memory."""
        ...

    @property
    def blank(self) -> bool:
        """There is nothing in it to read."""
        ...


Lookup = Callable[[str], Sequence[Held] | Literal["forgotten"] | None]
"""State id -> what the branch that ends there holds; None for a state of another agent."""

"""How the callbacks, tools and the retriever reach an agent's memory: one the caller keeps open, or one by name.

By name, writing borrows from the pool of this process, and reading opens the files read-only, which needs no
lock and no model. Knows no messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from langchain_core.runnables import RunnableConfig

from agentmem import AgentMemory, InputError
from langchain_agentmem.addressing import addressed
from langchain_agentmem.pool import Opening, borrow

T = TypeVar("T")


@dataclass(frozen=True)
class AgentAccess:
    """One agent, reachable.

    Args:
        memory: a memory that the caller opened and closes; None: the agent of ``opening``.
        opening: how the agent is opened by name. Ignored when a memory is given.
    """

    memory: AgentMemory | None
    opening: Opening | None = None

    def __post_init__(self) -> None:
        if (self.memory is None) == (self.opening is None):
            raise InputError("give either an open memory or an agent_id, one of the two")

    @property
    def agent_id(self) -> str:
        """The agent's name."""
        return self.memory.agent_id if self.memory is not None else self._named.agent_id

    @contextmanager
    def writing(self) -> Iterator[AgentMemory]:
        """The memory, to change it; made when there is none. Raises what ``AgentMemory.resume`` raises."""
        if self.memory is not None:
            yield self.memory
            return
        with borrow(self._named) as memory:
            yield memory

    @contextmanager
    def reading(self) -> Iterator[AgentMemory]:
        """The memory, to look at its texts. Raises AgentNotFoundError."""
        if self.memory is not None:
            yield self.memory
            return
        named = self._named
        with AgentMemory.resume(named.agent_id, home=named.home, create=False, read_only=True) as memory:
            yield memory

    @property
    def _named(self) -> Opening:
        assert self.opening is not None
        return self.opening


def agent_of_call(agent_id: str | None, config: RunnableConfig | None) -> str | None:
    """The agent that a call means: ``configurable.agent_id``, else the given one, else ``configurable.thread_id``.

    Raises:
        InputError: a name in the config is blank.
    """
    named = addressed(config, {})
    chosen: str | None = named.get("configured_agent") or agent_id or named.get("thread_id")
    return chosen

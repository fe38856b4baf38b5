"""A retriever over an agent's past messages: what was said that shares words with a question.

Knows LangChain's documents; which messages fit best is known to :mod:`langchain_agentmem.ranking`.
"""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig
from pydantic import ConfigDict, Field
from typing_extensions import override

from agentmem import AgentMemory, AgentNotFoundError, InputError
from agentmem.agent.gate import in_worker
from langchain_agentmem.agent_access import AgentAccess, agent_of_call
from langchain_agentmem.pool import Opening
from langchain_agentmem.ranking import Found, best_messages

TOLD = ("user", "assistant", "tool")
"""The roles that say something; instructions are left out."""


class AgentMemoryRetriever(BaseRetriever):
    """Finds past messages of an agent by the words they share with a question, for any model's chain.

    The agent is the open ``memory``, else ``configurable.agent_id`` of the call, else ``agent_id``, else
    ``configurable.thread_id``. It is read without a lock and without a model; an agent that does not exist yet has
    said nothing. Documents are single messages, best first, with metadata ``turn``, ``state_id``, ``created_at``,
    ``role``, ``source`` and ``score`` (BM25: comparable within one call only).

        retriever = AgentMemoryRetriever(agent_id="ada", k=3)
        retriever.invoke("What is my dog called?")
        retriever.invoke("What is my dog called?", {"configurable": {"agent_id": "bob"}}, k=1)

    Cost: each call reads the texts of the whole history and ranks them; 10,000 messages of 20 words take about a
    third of a second on one core. Nothing is kept between calls.

    Raises, when invoked:
        InputError: no agent was named, or ``k`` is below 1.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    agent_id: str | None = None
    """The agent; see above."""
    home: Any = None
    """Where all agents are, as in ``AgentMemory.resume``."""
    memory: AgentMemory | None = Field(default=None, exclude=True, repr=False)
    """An open memory, instead of a name."""
    k: int = Field(default=4, ge=1)
    """At most so many documents."""
    roles: tuple[str, ...] = TOLD
    """Whose messages are looked at."""

    @override
    def invoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        return super().invoke(input, config, **self._addressed(config, kwargs))

    @override
    async def ainvoke(
        self, input: str, config: RunnableConfig | None = None, **kwargs: Any
    ) -> list[Document]:
        return await super().ainvoke(input, config, **self._addressed(config, kwargs))

    @override
    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        agent_id: str | None = None,
    ) -> list[Document]:
        limit = self.k if k is None else k
        if limit < 1:
            raise InputError(f"k={limit}: use a positive number")
        try:
            with self._access(agent_id).reading() as memory:
                found = best_messages(memory.history(), query, limit=limit, roles=self.roles)
        except AgentNotFoundError:
            return []
        return [_document(one) for one in found]

    @override
    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        sync = run_manager.get_sync()
        return await in_worker(lambda: self._get_relevant_documents(query, run_manager=sync, **kwargs))

    def _addressed(self, config: RunnableConfig | None, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The call's keywords, with the agent that its config names: the config itself does not reach the search."""
        return {"agent_id": agent_of_call(self.agent_id, config), **kwargs}

    def _access(self, agent_id: str | None) -> AgentAccess:
        if self.memory is not None:
            return AgentAccess(self.memory)
        if agent_id is None:
            raise InputError(
                "no agent was named: use AgentMemoryRetriever(agent_id=...), or call it with "
                "config={'configurable': {'agent_id': ...}}"
            )
        return AgentAccess(None, Opening(agent_id, home=self.home))


def _document(found: Found) -> Document:
    turn = found.turn
    return Document(
        page_content=found.text,
        metadata={
            "turn": turn.turn,
            "state_id": turn.state_id,
            "created_at": turn.created_at,
            "role": found.role,
            "source": turn.source,
            "score": found.score,
        },
    )

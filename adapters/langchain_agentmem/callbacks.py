"""Callbacks that feed any model's chain into an agent's memory, and `with track(...)` for a whole block of code.

They translate LangChain's events, and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any, Unpack
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.outputs import LLMResult
from langchain_core.tracers.context import register_configure_hook

from agentmem import AgentMemory
from agentmem.agent.gate import in_worker
from langchain_agentmem.call_recorder import ModelCall
from langchain_agentmem.recording import Recording, RecordingKeywords

Parent = UUID | None
Json = dict[str, Any]


class AgentMemoryCallback(Recording, BaseCallbackHandler):
    """Feeds any model's chain into an agent's memory: what was said, and what the model answered, each once.

    Works with every chat model and plain LLM of LangChain. A chain that sends its whole history with each call is
    recorded once: messages are known by their id, else by their text behind the answer they follow. Nothing of a
    run that failed or was cancelled is kept, so retries and fallbacks leave one turn; the items of a batch are turns
    of their own; what ``ChatInfLLM`` answers on the same agent is in its memory already and is left alone.

        memory = AgentMemory.resume("ada")
        callback = AgentMemoryCallback(memory)
        chain.invoke({"question": "..."}, config={"callbacks": [callback]})
        memory.chat("What did I ask before?")

    What no model is asked about is fed to the memory itself: ``memory.observe(text, source="notes.txt")``.
    To record one model of a chain only, give it the callback: ``llm.with_config(callbacks=[callback])``.

    Cost: what is recorded is read by the agent's own model, one prefill of the new tokens for each turn, before the
    chain returns. In async chains that blocks the event loop: use :class:`AsyncAgentMemoryCallback`, or
    ``background=True``.

    Args:
        memory: an open memory, which stays yours; or
        agent_id, home, model, config, wait: an agent by name, opened when there is something to write; as in
            ``AgentMemory.resume``.
        checkpoint: "chain": a turn for each root chain, when it ends (a stream that is closed early ends when its
            model does); "turn": a turn for each model answer, at once, and kept even if the chain then fails;
            "off": only at :meth:`flush`.
        on_error: "warn": what cannot be recorded is logged and kept in ``errors``; "raise": it fails the chain too.
        background: write in a worker thread; :meth:`flush` waits for it and then raises what went wrong.

    Raises:
        InputError: neither a memory nor an agent_id, or both.
        ConfigError: ``checkpoint`` or ``on_error`` is unknown.
    """

    def on_chain_start(
        self, serialized: Json, inputs: Json, *, run_id: UUID, parent_run_id: Parent = None, **kwargs: Any
    ) -> None:
        """A chain started."""
        self._began(run_id, parent_run_id)

    def on_chain_end(
        self, outputs: Any, *, run_id: UUID, parent_run_id: Parent = None, **kwargs: Any
    ) -> None:
        """A chain ended well."""
        self._keep(self._ended(run_id))

    def on_chain_error(
        self, error: BaseException, *, run_id: UUID, parent_run_id: Parent = None, **kwargs: Any
    ) -> None:
        """A chain failed or was cancelled."""
        self._keep(self._failed(run_id, error))

    def on_tool_start(
        self, serialized: Json, input_str: str, *, run_id: UUID, parent_run_id: Parent = None, **kwargs: Any
    ) -> None:
        """A tool started."""
        self._began(run_id, parent_run_id)

    def on_tool_end(self, output: Any, *, run_id: UUID, parent_run_id: Parent = None, **kwargs: Any) -> None:
        """A tool ended well."""
        self._keep(self._ended(run_id))

    def on_tool_error(
        self, error: BaseException, *, run_id: UUID, parent_run_id: Parent = None, **kwargs: Any
    ) -> None:
        """A tool failed or was cancelled."""
        self._keep(self._failed(run_id, error))

    def on_retriever_start(
        self, serialized: Json, query: str, *, run_id: UUID, parent_run_id: Parent = None, **kwargs: Any
    ) -> None:
        """A retriever started."""
        self._began(run_id, parent_run_id)

    def on_retriever_end(
        self, documents: Sequence[Document], *, run_id: UUID, parent_run_id: Parent = None, **kwargs: Any
    ) -> None:
        """A retriever ended well."""
        self._keep(self._ended(run_id))

    def on_retriever_error(
        self, error: BaseException, *, run_id: UUID, parent_run_id: Parent = None, **kwargs: Any
    ) -> None:
        """A retriever failed or was cancelled."""
        self._keep(self._failed(run_id, error))

    def on_chat_model_start(
        self,
        serialized: Json,
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: Parent = None,
        metadata: Json | None = None,
        **kwargs: Any,
    ) -> None:
        """A chat model was sent messages."""
        self._asked(messages[0], run_id, parent_run_id, metadata)

    def on_llm_start(
        self,
        serialized: Json,
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: Parent = None,
        metadata: Json | None = None,
        **kwargs: Any,
    ) -> None:
        """A plain LLM was sent a text."""
        self._asked([HumanMessage(prompts[0])], run_id, parent_run_id, metadata)

    def on_llm_end(
        self, response: LLMResult, *, run_id: UUID, parent_run_id: Parent = None, **kwargs: Any
    ) -> None:
        """A model answered."""
        self._keep(self._answered(response, run_id))

    def on_llm_error(
        self, error: BaseException, *, run_id: UUID, parent_run_id: Parent = None, **kwargs: Any
    ) -> None:
        """A model failed or was cancelled."""
        self._keep(self._failed(run_id, error))


class AsyncAgentMemoryCallback(Recording, AsyncCallbackHandler):
    """The async twin of :class:`AgentMemoryCallback`: it writes in a worker thread, and the chain awaits it.

        callback = AsyncAgentMemoryCallback(agent_id="ada")
        await chain.ainvoke({"question": "..."}, config={"callbacks": [callback]})
        await callback.aclose()

    In a *sync* chain LangChain logs and swallows whatever an async handler raises, ``on_error="raise"`` included:
    look at ``errors`` there, or use the sync callback.
    """

    async def on_chain_start(
        self, serialized: Json, inputs: Json, *, run_id: UUID, parent_run_id: Parent = None, **kwargs: Any
    ) -> None:
        """A chain started."""
        self._began(run_id, parent_run_id)

    async def on_chain_end(
        self, outputs: Any, *, run_id: UUID, parent_run_id: Parent = None, **kwargs: Any
    ) -> None:
        """A chain ended well."""
        await self._akeep(self._ended(run_id))

    async def on_chain_error(
        self, error: BaseException, *, run_id: UUID, parent_run_id: Parent = None, **kwargs: Any
    ) -> None:
        """A chain failed or was cancelled."""
        await self._akeep(self._failed(run_id, error))

    async def on_tool_start(
        self, serialized: Json, input_str: str, *, run_id: UUID, parent_run_id: Parent = None, **kwargs: Any
    ) -> None:
        """A tool started."""
        self._began(run_id, parent_run_id)

    async def on_tool_end(
        self, output: Any, *, run_id: UUID, parent_run_id: Parent = None, **kwargs: Any
    ) -> None:
        """A tool ended well."""
        await self._akeep(self._ended(run_id))

    async def on_tool_error(
        self, error: BaseException, *, run_id: UUID, parent_run_id: Parent = None, **kwargs: Any
    ) -> None:
        """A tool failed or was cancelled."""
        await self._akeep(self._failed(run_id, error))

    async def on_retriever_start(
        self, serialized: Json, query: str, *, run_id: UUID, parent_run_id: Parent = None, **kwargs: Any
    ) -> None:
        """A retriever started."""
        self._began(run_id, parent_run_id)

    async def on_retriever_end(
        self, documents: Sequence[Document], *, run_id: UUID, parent_run_id: Parent = None, **kwargs: Any
    ) -> None:
        """A retriever ended well."""
        await self._akeep(self._ended(run_id))

    async def on_retriever_error(
        self, error: BaseException, *, run_id: UUID, parent_run_id: Parent = None, **kwargs: Any
    ) -> None:
        """A retriever failed or was cancelled."""
        await self._akeep(self._failed(run_id, error))

    async def on_chat_model_start(
        self,
        serialized: Json,
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: Parent = None,
        metadata: Json | None = None,
        **kwargs: Any,
    ) -> None:
        """A chat model was sent messages."""
        self._asked(messages[0], run_id, parent_run_id, metadata)

    async def on_llm_start(
        self,
        serialized: Json,
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: Parent = None,
        metadata: Json | None = None,
        **kwargs: Any,
    ) -> None:
        """A plain LLM was sent a text."""
        self._asked([HumanMessage(prompts[0])], run_id, parent_run_id, metadata)

    async def on_llm_end(
        self, response: LLMResult, *, run_id: UUID, parent_run_id: Parent = None, **kwargs: Any
    ) -> None:
        """A model answered."""
        await self._akeep(self._answered(response, run_id))

    async def on_llm_error(
        self, error: BaseException, *, run_id: UUID, parent_run_id: Parent = None, **kwargs: Any
    ) -> None:
        """A model failed or was cancelled."""
        await self._akeep(self._failed(run_id, error))

    async def aflush(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as concurrent.futures has it
        """The async twin of ``flush``."""
        await in_worker(lambda: self.flush(timeout))

    async def aclose(self) -> None:
        """The async twin of ``close``."""
        await in_worker(self.close)

    async def _akeep(self, calls: Sequence[ModelCall]) -> None:
        if calls:
            await in_worker(lambda: self._keep(calls))


_tracking: ContextVar[AgentMemoryCallback | AsyncAgentMemoryCallback | None] = ContextVar(
    "agentmem_tracking", default=None
)
register_configure_hook(_tracking, inheritable=True)


@contextmanager
def track(
    memory: AgentMemory | None = None, **options: Unpack[RecordingKeywords]
) -> Iterator[AgentMemoryCallback]:
    """Feed every chain that is run inside the block into an agent's memory; nothing is passed to the chains.

        with track(agent_id="ada") as callback:
            chain.invoke({"question": "..."})
        callback.errors        # what could not be recorded

    At the end of the block the callback is closed. Of nested blocks the innermost records.

    Args:
        memory, options: as for :class:`AgentMemoryCallback`.
    """
    callback = AgentMemoryCallback(memory, **options)
    token = _tracking.set(callback)
    try:
        yield callback
    finally:
        _tracking.reset(token)
        callback.close()


@asynccontextmanager
async def atrack(
    memory: AgentMemory | None = None, **options: Unpack[RecordingKeywords]
) -> AsyncIterator[AsyncAgentMemoryCallback]:
    """The async twin of :func:`track`, for code that awaits its chains."""
    callback = AsyncAgentMemoryCallback(memory, **options)
    token = _tracking.set(callback)
    try:
        yield callback
    finally:
        _tracking.reset(token)
        await callback.aclose()

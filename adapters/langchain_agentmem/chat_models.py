"""ChatInfLLM: a LangChain chat model whose conversations stay in an agent's memory.

Turns LangChain's calls into :class:`Call` records and hands them to :mod:`langchain_agentmem.running`. Holds options
only: weights, open memories and K/V live outside of it, so building one costs nothing and copies are free.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any, Literal, cast

from langchain_core.caches import BaseCache
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput, ModelProfile
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool
from pydantic import ConfigDict, Field, SecretStr
from typing_extensions import override

from agentmem import LanguageModel, MemoryConfig
from agentmem.engine.catalog import DEFAULT_MODEL
from langchain_agentmem.addressing import addressed
from langchain_agentmem.calls import Call, call_from
from langchain_agentmem.model_profile import model_profile
from langchain_agentmem.running import run
from langchain_agentmem.structured import structured_runnable
from langchain_agentmem.tool_choice import checked_choice, openai_tools
from langchain_agentmem.worker import InWorker

ToolLike = dict[str, Any] | type | Callable[..., Any] | BaseTool
Method = Literal["function_calling", "json_mode", "json_schema"]


class ChatInfLLM(BaseChatModel):
    """A local chat model with a memory: give it an agent, and what was said stays in that agent's KV cache.

    Setup:
        ``pip install 'agentmem-kv[langchain,structured]'``; no key, no server. The first call downloads the model.

    Instantiate:
        ```python
        from langchain_agentmem import ChatInfLLM

        llm = ChatInfLLM(agent_id="ada")
        ```

    Invoke:
        ```python
        llm.invoke("My dog is called Biscuit.")
        llm.invoke("What is my dog called?").content  # also next week, in another process
        ```

    Many users: leave ``agent_id`` out and name the agent in each call, on whatever path it is made:
        ```python
        chain.invoke({"question": "..."}, {"configurable": {"agent_id": "user-17"}})
        ```

    The agent of a call is, in this order: the keyword ``agent_id`` (also by ``bind``), ``configurable.agent_id``, the
    constructor's, ``configurable.thread_id``. With none of them the call has a memory of its own, for itself alone.

    Callers may send the whole conversation each time, as LangGraph does, or only what is new: what the memory holds
    already is not read again. See ``docs/LANGCHAIN.md`` for how that is decided.

    Raises:
        InputError: messages or options that cannot be used; nothing is stored.
        FingerprintMismatchError: the agent was made with another model.
        AgentBusyError: another process writes to the agent for longer than ``wait``.
        HistoryChangedError: ``on_missing="error"``, and the list leaves out what is held.
        TurnTimeoutError: ``timeout`` went by; the turn was dropped.
        MissingExtraError: forced tool calls or structured output without the extra ``structured``.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    model: str | Path | LanguageModel | None = None
    """A built-in name, a Hugging Face id, a folder, a GGUF file; None: as the agent was made, else the default."""
    agent_id: str | None = None
    """The agent whose memory this is, if a call names none."""
    home: Any = Field(default=None, exclude=True)
    """Where all agents are: a folder or a ``Home``; None: ``AGENTMEM_HOME``, else the user's data folder."""
    memory_config: MemoryConfig | None = None
    """How much is attended to; None: as stored, else the default."""
    device: str = "auto"
    dtype: str = "auto"
    wait: float = 60.0
    """Seconds to wait for another process that writes to the agent."""

    temperature: float = 0.0
    """0 is greedy and deterministic."""
    max_tokens: int = 512
    """The reply ends after so many tokens at the latest."""
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: list[str] | None = None
    """Texts that end the reply."""
    streaming: bool = False
    """Whether ``invoke`` goes through the stream too; the result is the same."""
    timeout: float | None = None
    """Seconds a turn may take, looked at before each token; a longer one is dropped with TurnTimeoutError."""
    max_retries: int = 0
    """Accepted for other models' sake: nothing here fails by chance. Use ``with_retry``."""
    api_key: SecretStr | None = Field(default=None, exclude=True)
    """Accepted for other models' sake, and not used."""

    memory: Literal["on", "read", "off"] = "on"
    """on: turns are kept; read: the memory answers and stays as it was; off: calls stand for themselves."""
    on_missing: Literal["keep", "rebuild", "error"] = "keep"
    """What to do when the caller's list leaves out, or changes, earlier messages that the memory holds."""
    on_unrelated: Literal["ephemeral", "import"] = "ephemeral"
    """What to do with a list that holds answers, none of which is this thread's: stand for itself, or be read in."""
    system_change: Literal["append", "rebuild", "ignore"] = "append"
    """What to do with another system prompt than the one in force."""

    cache: BaseCache | bool | None = Field(default=False, exclude=True)
    """Off: an answer from LangChain's cache would never reach the memory."""

    # -- what LangChain asks of a model ------------------------------------------------------------

    @property
    @override
    def _llm_type(self) -> str:
        return "agentmem"

    @property
    @override
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"model": self.model_name, "agent_id": self.agent_id, "temperature": self.temperature}

    @property
    def model_name(self) -> str:
        """The model's name as text; LangChain's agents look for it."""
        if isinstance(self.model, LanguageModel):
            return self.model.name
        return str(self.model or DEFAULT_MODEL)

    @override
    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        params["ls_provider"] = "agentmem"
        params.setdefault("ls_model_name", self.model_name)
        return params

    @override
    def _resolve_model_profile(self) -> ModelProfile:
        loaded = self.model if isinstance(self.model, LanguageModel) else None
        return model_profile(self.max_tokens, language_model=loaded, config=self.memory_config)

    def language_model(self) -> LanguageModel:
        """The weights and the tokenizer, loaded when first asked for and shared by the whole process."""
        if isinstance(self.model, LanguageModel):
            return self.model
        return LanguageModel.load(self.model or DEFAULT_MODEL, device=self.device, dtype=self.dtype)

    @override
    def get_token_ids(self, text: str) -> list[int]:
        """The model's own token ids of a text."""
        ids = self.language_model().tokenizer.encode(text, add_special_tokens=False)
        return [int(token) for token in ids]

    # -- calls -------------------------------------------------------------------------------------

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _result(run(self._call(messages, stop, kwargs)))

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with closing(run(self._call(messages, stop, kwargs))) as chunks:
            for chunk in chunks:
                yield ChatGenerationChunk(message=chunk)

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = self._call(messages, stop, kwargs)
        whole: AIMessage | None = None

        def chunks() -> Any:
            nonlocal whole
            whole = yield from run(call)

        async with InWorker(chunks) as pieces:
            async for _ in pieces:
                pass
        return ChatResult(generations=[ChatGeneration(message=cast("AIMessage", whole))])

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        call = self._call(messages, stop, kwargs)
        async with InWorker(lambda: run(call)) as pieces:
            async for chunk in pieces:
                yield ChatGenerationChunk(message=chunk)

    def _call(self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]) -> Call:
        return call_from(self, messages, stop, kwargs)

    # -- whose memory: the config of a call does not reach _generate by itself -------------------------

    @override
    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Answer, and remember both if an agent is named."""
        return super().invoke(input, config, stop=stop, **addressed(config, kwargs))

    @override
    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """The async twin of ``invoke``; cancelling it drops the turn."""
        return await super().ainvoke(input, config, stop=stop, **addressed(config, kwargs))

    @override
    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """The answer piece by piece; closed early, the memory stays as it was."""
        chunks = super().stream(input, config, stop=stop, **addressed(config, kwargs))
        with closing(cast("Any", chunks)):
            yield from chunks

    @override
    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """The async twin of ``stream``; cancelling it stops the decoding and drops the turn."""
        chunks = super().astream(input, config, stop=stop, **addressed(config, kwargs))
        async with aclosing(cast("Any", chunks)):
            async for chunk in chunks:
                yield chunk

    @override
    def stream_events(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Events of a call; ``version="v3"`` is a call of its own, the others go through ``stream``."""
        if kwargs.get("version") == "v3":
            kwargs = addressed(config, kwargs)
        return super().stream_events(input, config, **kwargs)

    @override
    def astream_events(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """The async twin of ``stream_events``."""
        if kwargs.get("version") == "v3":
            kwargs = addressed(config, kwargs)
        return super().astream_events(input, config, **kwargs)

    def ephemeral(self) -> Runnable[LanguageModelInput, AIMessage]:
        """This model without a memory: for side calls, such as summaries, that shall leave no trace."""
        return self.bind(memory="off")

    # -- tools and structure -----------------------------------------------------------------------

    @override
    def bind_tools(
        self,
        tools: Sequence[ToolLike],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let the model call tools.

        Args:
            tools: functions, pydantic classes, LangChain tools, Runnables as tools, OpenAI or Anthropic dicts.
            tool_choice: None or "auto": the model decides; "any", "required" or True: it must call one; "none":
                it may not; a tool's name, or ``{"type": "function", "function": {"name": ...}}``: that one.
            kwargs: ``parallel_tool_calls=False``: one call at most; others as in ``invoke``.

        Raises:
            InputError: no tool has the name that was chosen.
        """
        known = openai_tools(tools)
        choice = checked_choice(tool_choice, known)
        return self.bind(tools=known, tool_choice=choice, **kwargs)

    @override
    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | Any]:
        """Answers as objects of a schema; a grammar makes sure that they parse.

        Args:
            schema: a pydantic class, a TypedDict class, a JSON schema, or an OpenAI tool.
            method: "json_schema" constrains the reply, "function_calling" goes through a tool call, "json_mode"
                asks for any JSON object, which the prompt has to describe.
            include_raw: give {"raw", "parsed", "parsing_error"} and raise nothing when parsing fails.
            strict: accepted; replies are always constrained.
        """
        return structured_runnable(
            self, schema, method=method, include_raw=include_raw, strict=strict, **kwargs
        )


def _result(chunks: Any) -> ChatResult:
    """Run to the end; only the whole message counts."""
    while True:
        try:
            next(chunks)
        except StopIteration as end:
            return ChatResult(generations=[ChatGeneration(message=end.value)])

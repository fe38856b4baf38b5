"""AgentMemoryMiddleware: whose memory a LangChain agent's model calls are for, and where it stood at each step.

Only the agent's own calls are given the memory: what tools, summarisers and other middleware ask the same model
leaves no trace, if that model was made with ``memory="off"``. Knows no messages: the whole list goes to the model,
which reads what is new in it and nothing else; a list cut here would hide what was edited or removed.
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Literal, NotRequired

from agentmem.errors import InputError, MissingExtraError
from langchain_agentmem.chat_models import ChatInfLLM

try:
    from langchain.agents.middleware.types import (
        AgentMiddleware,
        AgentState,
        ExtendedModelResponse,
        ModelRequest,
        ModelResponse,
        PrivateStateAttr,
    )
    from langgraph.config import get_config
    from langgraph.types import Command
except ImportError as error:
    raise MissingExtraError("the middleware needs langchain: pip install 'agentmem-kv[langchain]'") from error

STATE_KEY = "agentmem_state_id"
"""Where the graph's state keeps the memory's state id."""

Name = str | Callable[[ModelRequest[Any]], str]
"""An agent, or how a request names one: ``lambda request: request.runtime.context.user_id``."""


class AgentMemoryState(AgentState[Any]):
    """What the middleware adds to a graph's state."""

    agentmem_state_id: NotRequired[Annotated[str | None, PrivateStateAttr]]
    """The state of the memory after the latest answer; not part of the graph's input or output."""


class AgentMemoryMiddleware(AgentMiddleware[AgentMemoryState, Any, Any]):
    """Gives the model calls of a ``create_agent`` agent a memory.

    Each answer's state id is written into the graph's state in the same step as the answer, so every checkpoint of
    a thread says where the memory stood: ``graph.get_state(config).values["agentmem_state_id"]``.

    List it last, so that it sees the model that is really called. A model that is no ChatInfLLM, such as a
    fallback, is called unchanged, with one warning; its answers are read in at the next call of a ChatInfLLM.

    Args:
        agent_id: the agent, if ``configurable.agent_id`` names none: a name, or a function of the request. None:
            the model's own agent, else the thread.
        memory: "on" keeps the turns, "read" leaves the memory as it is. None: "read" for a model made with
            ``memory="read"``, else "on".

    Raises:
        InputError: at a call for which no agent is named at all.

    Example:
        llm = ChatInfLLM(memory="off")  # side calls are not remembered
        agent = create_agent(llm, tools, middleware=[AgentMemoryMiddleware("ada")], checkpointer=saver)
    """

    state_schema = AgentMemoryState

    def __init__(self, agent_id: Name | None = None, *, memory: Literal["on", "read"] | None = None) -> None:
        super().__init__()
        if isinstance(agent_id, str) and not agent_id.strip():
            raise InputError(f"agent_id={agent_id!r} is no name; give one, or None for the thread's")
        if memory not in {"on", "read", None}:
            raise InputError(f"memory={memory!r}: use 'on' or 'read'")
        self._agent_id = agent_id
        self._memory = memory
        self._warned = False

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """Call the model with the agent's memory."""
        return _checkpointed(handler(self._addressed(request)))

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
        """Async twin of :meth:`wrap_model_call`."""
        return _checkpointed(await handler(self._addressed(request)))

    def _addressed(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        """The request with the memory it is for; as it is when the model has none."""
        model = request.model
        if not isinstance(model, ChatInfLLM):
            self._warn(model)
            return request
        settings: dict[str, Any] = {"memory": self._memory or ("read" if model.memory == "read" else "on")}
        agent = self._agent(request, get_config().get("configurable") or {}, model)
        if agent is not None:
            settings["agent_id"] = agent
        return request.override(model_settings={**settings, **request.model_settings})

    def _agent(
        self, request: ModelRequest[Any], configurable: Mapping[str, Any], model: ChatInfLLM
    ) -> str | None:
        """The agent to name in the call; None: the model finds it in the config or has it."""
        if configurable.get("agent_id") is not None:
            return None
        if self._agent_id is None:
            if model.agent_id is None and configurable.get("thread_id") is None:
                raise InputError(
                    "no agent is named: give AgentMemoryMiddleware an agent_id, or call the agent with "
                    "config={'configurable': {'agent_id': ...}} or a thread_id"
                )
            return None
        agent = self._agent_id if isinstance(self._agent_id, str) else self._agent_id(request)
        if not isinstance(agent, str) or not agent.strip():
            raise InputError(f"the function that names the agent gave {agent!r}, which is no name")
        return agent

    def _warn(self, model: object) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"AgentMemoryMiddleware: {type(model).__name__} is no ChatInfLLM and has no memory; it is called "
                "unchanged. For other models see AgentMemoryCallback.",
                stacklevel=2,
            )


def _checkpointed(response: ModelResponse[Any]) -> ModelResponse[Any] | ExtendedModelResponse[Any]:
    """The response, with the state the memory is in now."""
    for message in reversed(response.result):
        told = message.response_metadata.get("agentmem") or {}
        if told.get("state_id") is not None:
            return ExtendedModelResponse(response, Command(update={STATE_KEY: told["state_id"]}))
    return response

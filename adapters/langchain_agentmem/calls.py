"""One call of the chat model, with everything settled: options of the model, the binding and the call, merged.

Checks options and refuses unknown ones. Knows no memory and runs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from langchain_core.messages import BaseMessage

from agentmem import InputError, LanguageModel, MemoryConfig
from agentmem.agent.keywords import SamplingKeywords
from langchain_agentmem.pool import Opening
from langchain_agentmem.reconcile import Policies
from langchain_agentmem.tool_choice import AUTO, checked_choice, distinct

SystemChange = Literal["append", "rebuild", "ignore"]

_SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "repetition_penalty": "repetition_penalty",
    "seed": "seed",
    "max_tokens": "max_new_tokens",
}
"""Options of a call and what AgentMemory calls them."""
_ADDRESS = ("agent_id", "configured_agent", "thread_id", "state_id", "memory", "model")
_TOOLS = ("tools", "tool_choice", "parallel_tool_calls", "response_format", "strict")
_SETTLED_ELSEWHERE = ("stream", "stream_usage", "n", "timeout")
_OPTIONS = (*_SAMPLING, *_ADDRESS, *_TOOLS, *_SETTLED_ELSEWHERE)


class Defaults(Protocol):
    """The options of a chat model, as far as calls need them."""

    model: str | Path | LanguageModel | None
    agent_id: str | None
    home: Any
    memory_config: MemoryConfig | None
    device: str
    dtype: str
    wait: float
    temperature: float
    max_tokens: int
    top_p: float
    top_k: int
    repetition_penalty: float
    seed: int | None
    stop: list[str] | None
    timeout: float | None
    memory: Literal["on", "read", "off"]
    on_missing: Literal["keep", "rebuild", "error"]
    on_unrelated: Literal["ephemeral", "import"]
    system_change: SystemChange
    output_version: str | None


@dataclass(frozen=True)
class Call:
    """What one call asks for."""

    messages: Sequence[BaseMessage]
    opening: Opening
    """With the agent's name; without one, or with memory off, the name is not used."""
    ephemeral: bool
    """The call stands for itself: no agent's memory is read or written."""
    remember: bool
    thread: str | None
    state_id: str | None
    """Continue from this state; all messages are new ones then."""
    tools: tuple[dict[str, Any], ...]
    tool_choice: str
    parallel: bool | None
    """Whether several calls may stand in one answer; None: where the model is free to call or not."""
    response_format: Mapping[str, Any] | None
    sampling: SamplingKeywords
    policies: Policies
    system_change: SystemChange
    timeout: float
    output_version: str | None
    """LangChain's form of contents, see ``BaseChatModel.output_version``."""


def call_from(
    defaults: Defaults, messages: Sequence[BaseMessage], stop: list[str] | None, options: Mapping[str, Any]
) -> Call:
    """Merge a model's options with a call's. Raises InputError for options that cannot be used."""
    _check_known(options)
    agent = options.get("agent_id") or options.get("configured_agent") or defaults.agent_id
    agent = agent or options.get("thread_id")
    memory = options.get("memory", defaults.memory)
    if memory not in {"on", "read", "off"}:
        raise InputError(f"memory={memory!r}: use 'on', 'read' or 'off'")
    tools = distinct(options.get("tools") or ())
    timeout = options.get("timeout", defaults.timeout)
    return Call(
        messages=messages,
        opening=_opening(defaults, str(agent or ""), options),
        ephemeral=agent is None or memory == "off",
        remember=memory == "on",
        thread=options.get("thread_id"),
        state_id=options.get("state_id"),
        tools=tools,
        tool_choice=checked_choice(options.get("tool_choice"), tools) if tools else AUTO,
        parallel=options.get("parallel_tool_calls"),
        response_format=options.get("response_format"),
        sampling=_sampling(defaults, stop, options),
        policies=Policies(on_missing=defaults.on_missing, on_unrelated=defaults.on_unrelated),
        system_change=defaults.system_change,
        timeout=math.inf if timeout is None else float(timeout),
        output_version=defaults.output_version,
    )


def _opening(defaults: Defaults, agent_id: str, options: Mapping[str, Any]) -> Opening:
    return Opening(
        agent_id=agent_id,
        home=defaults.home,
        model=options.get("model") or defaults.model,
        config=defaults.memory_config,
        device=defaults.device,
        dtype=defaults.dtype,
        wait=defaults.wait,
    )


def _sampling(defaults: Defaults, stop: list[str] | None, options: Mapping[str, Any]) -> SamplingKeywords:
    chosen = {ours: options.get(name, getattr(defaults, name)) for name, ours in _SAMPLING.items()}
    stops = stop if stop is not None else defaults.stop
    # an empty answer is no answer: LangChain and its agents take it for a failure
    return cast("SamplingKeywords", {**chosen, "stop": tuple(stops or ()), "min_new_tokens": 1})


def _check_known(options: Mapping[str, Any]) -> None:
    if options.get("n", 1) not in {1, None}:
        raise InputError(
            f"n={options['n']!r}: one answer a call; for several, use batch() on forks of the agent"
        )
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        shown = sorted(name for name in _OPTIONS if name != "configured_agent")
        raise InputError(f"unknown option {', '.join(unknown)}; the options of a call are {', '.join(shown)}")

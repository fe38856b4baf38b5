"""The LangChain adapter of agentmem: a chat model with a memory, and what connects other chains to one.

Names are loaded when they are first used: importing this package imports neither torch nor LangChain.
"""

from __future__ import annotations

import importlib
import typing

if typing.TYPE_CHECKING:
    from langchain_agentmem.callbacks import AgentMemoryCallback, AsyncAgentMemoryCallback, atrack, track
    from langchain_agentmem.chat_models import ChatInfLLM
    from langchain_agentmem.middleware import AgentMemoryMiddleware
    from langchain_agentmem.pool import close_memories
    from langchain_agentmem.retrievers import AgentMemoryRetriever
    from langchain_agentmem.saver import AgentMemorySaver, AsyncAgentMemorySaver
    from langchain_agentmem.tools import memory_tools

__all__ = [
    "AgentMemoryCallback",
    "AgentMemoryMiddleware",
    "AgentMemoryRetriever",
    "AgentMemorySaver",
    "AsyncAgentMemoryCallback",
    "AsyncAgentMemorySaver",
    "ChatInfLLM",
    "atrack",
    "close_memories",
    "memory_tools",
    "track",
]

_PLACES = {
    "AgentMemoryCallback": "callbacks",
    "AgentMemoryMiddleware": "middleware",
    "AgentMemoryRetriever": "retrievers",
    "AgentMemorySaver": "saver",
    "AsyncAgentMemoryCallback": "callbacks",
    "AsyncAgentMemorySaver": "saver",
    "ChatInfLLM": "chat_models",
    "atrack": "callbacks",
    "close_memories": "pool",
    "memory_tools": "tools",
    "track": "callbacks",
}


def __getattr__(name: str) -> object:
    """Load a public name when it is first asked for."""
    if name not in _PLACES:
        raise AttributeError(f"module 'langchain_agentmem' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"langchain_agentmem.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

"""Whose memory a call is for: read from LangChain's config, which does not reach the model by itself.

Knows nothing of what an agent is; it turns ``config`` into the keywords that every path hands down.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.runnables import RunnableConfig, ensure_config

from agentmem.errors import InputError

INTERNAL = ("lc_internal_call", "lc_source")
"""Marks of calls that LangChain's own middleware makes: a summary, a choice among tools, an emulated tool."""


def addressed(config: RunnableConfig | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of a call with ``configured_agent``, ``thread_id`` and ``memory`` filled in from its config.

    Raises:
        InputError: ``configurable.agent_id`` or ``thread_id`` is no text.
    """
    settled = ensure_config(config)
    configurable = settled.get("configurable") or {}
    added: dict[str, Any] = {}
    agent = _name(configurable, "agent_id")
    if agent is not None:
        added["configured_agent"] = agent
    thread = _name(configurable, "thread_id")
    if thread is not None:
        added["thread_id"] = thread
    metadata = settled.get("metadata") or {}
    if any(mark in metadata for mark in INTERNAL):
        added["memory"] = "off"
    return {**added, **kwargs}


def _name(configurable: Mapping[str, Any], key: str) -> str | None:
    """A name in the config; numbers and UUIDs, which threads often are, count as their text."""
    value = configurable.get(key)
    if value is None:
        return None
    text = str(value)
    if not text.strip():
        raise InputError(f"configurable[{key!r}] is {value!r}; give a name, or leave it out")
    return text

"""Chat models on tiny weights, and a look at what each agent's memory really holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agentmem import AgentMemory, InMemoryHome, LanguageModel
from agentmem.store.base import Home
from langchain_agentmem import ChatInfLLM
from support.tiny_language_model import SMALL, language_model


def chat_model(
    home: Path | Home | None = None, model: LanguageModel | None = None, **options: Any
) -> ChatInfLLM:
    """A chat model on tiny random weights; short answers, a home of its own unless one is given."""
    settled: dict[str, Any] = {"max_tokens": 4, "memory_config": SMALL, **options}
    return ChatInfLLM(model=model or language_model(), home=home or InMemoryHome(), **settled)


def held(llm: ChatInfLLM, agent_id: str) -> list[tuple[str, str]]:
    """(role, text) of everything on the agent's current branch, instructions left out."""
    if not any(info.agent_id == agent_id for info in AgentMemory.list(llm.home)):
        return []
    with AgentMemory.resume(agent_id, home=llm.home, model=llm.model, wait=10) as memory:
        return [
            (message["role"], message["content"])
            for turn in memory.history()
            for message in turn.messages
            if "made" not in (message.get("metadata") or {})
        ]


def said(llm: ChatInfLLM, agent_id: str) -> list[str]:
    """What users said to the agent, in order."""
    return [text for role, text in held(llm, agent_id) if role == "user"]

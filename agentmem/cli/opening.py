"""Opening an agent for a verb: bring its model with progress on the terminal, then resume it.

torch and transformers are imported in here, when a verb needs them, never by `agentmem --help`.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

import agentmem


def opened(
    name: str, *, home: Path | None, model: str | None, create: bool = False, **options: Any
) -> agentmem.AgentMemory:
    """The agent, open; the verb closes it by ``with``.

    ``options`` are those of ``AgentMemory.resume``: system, wait, read_only.
    """
    if not options.get("read_only"):
        _bring(model or _stored_model(name, home), create=create)
    with working(f"opening {name}"):
        return agentmem.AgentMemory.resume(name, model=model, home=home, create=create, **options)


def working(what: str) -> AbstractContextManager[Any]:
    """A spinner on a terminal's stderr while something takes its time; nothing elsewhere."""
    if not sys.stderr.isatty():
        return nullcontext()
    return Console(stderr=True).status(f"[dim]{what} …[/dim]")


def _bring(model: str | None, *, create: bool) -> None:
    """Fetch the model an agent will run on, so that a long download is seen; None: the default."""
    with working("loading torch"):
        from agentmem.engine.catalog import DEFAULT_MODEL
        from agentmem.engine.loading import ModelLoader, resolve
        from agentmem.engine.rich_progress import RichProgress
    if model is not None or create:
        ModelLoader().bring(resolve(model or DEFAULT_MODEL), progress=RichProgress())


def _stored_model(name: str, home: Path | None) -> str | None:
    """The model an agent was made with; None when there is no such agent."""
    agents = agentmem.AgentMemory.list(home=home)
    return next((agent.model for agent in agents if agent.agent_id == name), None)

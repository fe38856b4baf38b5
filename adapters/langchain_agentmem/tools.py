"""Tools by which a model looks into an agent's memory, keeps a note there, and forgets turns of it.

For agents of any model; the agent is chosen by the constructor or by the call's config, never by the model. Knows
LangChain's tools; what is found and forgotten is the memory's own business.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, ToolException
from langchain_core.tools.base import ArgsSchema
from pydantic import BaseModel, ConfigDict, Field

from agentmem import AgentMemError, AgentMemory, AgentNotFoundError, HistoryTurn, LanguageModel, MemoryConfig
from agentmem.agent.gate import in_worker
from agentmem.store.base import Home
from agentmem.store.search import words_of
from langchain_agentmem.agent_access import AgentAccess, agent_of_call
from langchain_agentmem.pool import Opening
from langchain_agentmem.ranking import best_messages
from langchain_agentmem.retrievers import TOLD

SHOWN = 300
"""Characters of a message that a result shows."""
NOTE = "Note to remember: "
"""Put before what a model wants to remember, so that it is not taken for the user's words."""
_EMPTY = "The memory is empty: nothing was said yet."


def memory_tools(
    agent_id: str | None = None,
    *,
    memory: AgentMemory | None = None,
    home: str | Path | Home | None = None,
    model: str | Path | LanguageModel | None = None,
    config: MemoryConfig | None = None,
    wait: float = 60.0,
) -> list[BaseTool]:
    """The tools ``search_memory``, ``remember`` and ``forget`` for one agent, or for the agent of each call.

        agent = create_agent(llm, tools=memory_tools("ada"))
        agent = create_agent(llm, tools=memory_tools())         # the agent of configurable.agent_id or thread_id

    ``forget`` shows what it would forget and forgets it when it is called again with ``confirm``; to be asked first,
    put it under LangChain's HumanInTheLoopMiddleware, or leave it out of the list.

    Args:
        agent_id: the agent, unless ``configurable.agent_id`` of the call names one; without either it is
            ``configurable.thread_id``.
        memory: an open memory, instead of a name.
        home, model, config, wait: how an agent is opened by name, as in ``AgentMemory.resume``. Searching needs
            no model.
    """
    options: dict[str, Any] = {
        "agent_id": agent_id,
        "memory": memory,
        "home": home,
        "model": model,
        "memory_config": config,
        "wait": wait,
    }
    return [SearchMemory(**options), Remember(**options), Forget(**options)]


class _MemoryTool(BaseTool):
    """What the three tools share: how the agent is found, and how its errors reach the model."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    agent_id: str | None = None
    memory: AgentMemory | None = Field(default=None, exclude=True, repr=False)
    home: Any = Field(default=None, exclude=True, repr=False)
    model: Any = Field(default=None, exclude=True, repr=False)
    memory_config: MemoryConfig | None = None
    wait: float = 60.0
    handle_tool_error: Any = True
    """The model reads what went wrong and what to do; False: it is raised as ToolException."""

    def _access(self, config: RunnableConfig | None) -> AgentAccess:
        if self.memory is not None:
            return AgentAccess(self.memory)
        with _told_to_model():
            agent = agent_of_call(self.agent_id, config)
        if agent is None:
            raise ToolException(
                f"{self.name}: no agent was named. Make the tools with memory_tools('name'), or call the chain with "
                "config={'configurable': {'agent_id': ...}} or a thread_id."
            )
        return AgentAccess(None, Opening(agent, self.home, self.model, self.memory_config, wait=self.wait))


@contextmanager
def _told_to_model() -> Iterator[None]:
    """Errors of the memory as errors of the tool; their texts say what to do."""
    try:
        yield
    except AgentMemError as error:
        raise ToolException(str(error)) from error


class SearchArguments(BaseModel):
    """Arguments of ``search_memory``."""

    query: str = Field(description="Words, or a question, about what was said before.")
    limit: int = Field(default=5, ge=1, le=50, description="At most so many results.")


class SearchMemory(_MemoryTool):
    """Finds what was said before, by words; needs no model."""

    name: str = "search_memory"
    description: str = (
        "Search everything that was said in earlier conversations. "
        "Returns the messages that fit best, each with its turn and date."
    )
    args_schema: ArgsSchema | None = SearchArguments

    def _run(self, query: str, config: RunnableConfig, limit: int = 5) -> str:
        access = self._access(config)
        if not words_of(query):
            raise ToolException(f"search_memory: the query {query!r} holds no word. Give one or more.")
        with _told_to_model():
            try:
                with access.reading() as memory:
                    turns = memory.history()
            except AgentNotFoundError:
                return _EMPTY
        found = best_messages(turns, query, limit=limit, roles=TOLD)
        if not found:
            return f"Nothing was said with these words: {query!r}. Try other words." if turns else _EMPTY
        return "\n".join(_line(one.turn, one.role, one.text) for one in found)

    async def _arun(self, query: str, config: RunnableConfig, limit: int = 5) -> str:
        return await in_worker(lambda: self._run(query, config, limit))


class RememberArguments(BaseModel):
    """Arguments of ``remember``."""

    text: str = Field(min_length=1, description="What to remember, as a whole sentence.")


class Remember(_MemoryTool):
    """Keeps a note in the memory, as a turn of its own.

    It is written as a user's message: in the middle of an agent's loop it then comes between a call and its result,
    which every chat template that knows results takes. The same note twice in a row of turns is kept once.
    """

    name: str = "remember"
    description: str = "Keep a note in the long-term memory. It is there in every later conversation."
    args_schema: ArgsSchema | None = RememberArguments

    def _run(self, text: str, config: RunnableConfig) -> str:
        access = self._access(config)
        note = {
            "role": "user",
            "content": NOTE + text.strip(),
            "metadata": {"origin": "tool", "tool": self.name},
        }
        if not text.strip():
            raise ToolException("remember: the text is empty. Give what shall be remembered.")
        with _told_to_model(), access.writing() as memory:
            held = next((turn for turn in memory.history(limit=_RECENT) if _holds(turn, note)), None)
            if held is not None:
                return f"This is remembered already (turn {held.turn})."
            memory.append([note])
            (turn,) = memory.history(limit=1)
            return f"Remembered (turn {turn.turn})."

    async def _arun(self, text: str, config: RunnableConfig) -> str:
        return await in_worker(lambda: self._run(text, config))


_RECENT = 8
"""Turns in which a note is looked for before it is written again: a tool may be run twice for one call."""


class ForgetArguments(BaseModel):
    """Arguments of ``forget``."""

    match: str | None = Field(default=None, description="Text that the turns to forget hold. Or use turn.")
    turn: int | None = Field(default=None, description="The number of the turn to forget. Or use match.")
    confirm: bool = Field(
        default=False, description="False: only show what would be forgotten. True: forget it for good."
    )


class Forget(_MemoryTool):
    """Forgets turns for good; shows them first, unless it is called with ``confirm``."""

    name: str = "forget"
    description: str = (
        "Forget earlier turns of the memory for good, by text they hold or by number. Without confirm it "
        "only shows what would be forgotten: check that, then call it again with confirm=true."
    )
    args_schema: ArgsSchema | None = ForgetArguments

    def _run(
        self,
        *,
        config: RunnableConfig,
        match: str | None = None,
        turn: int | None = None,
        confirm: bool = False,
    ) -> str:
        access = self._access(config)
        if (match is None or not match.strip()) == (turn is None):
            raise ToolException("forget: give either match (a text) or turn (a number), one of the two.")
        with _told_to_model(), access.writing() as memory:
            receipt = memory.forget(match=match, turn=turn, dry_run=True)
            asking = _asking(memory, self.name) if match is not None else None
            chosen = [one for one in receipt.turns if one != asking]
            rest = "" if asking not in receipt.turns else _STAYS.format(turn=asking)
            if not chosen:
                return (
                    f"Nothing to forget: no turn holds {match!r}.{rest}"
                    if match
                    else f"Turn {turn} is forgotten already."
                )
            shown = "\n".join(_summary(one) for one in memory.history() if one.turn in chosen)
            if not confirm:
                return (
                    f"This would be forgotten; call forget again with confirm=true to do it:\n{shown}{rest}"
                )
            for one in chosen:
                memory.forget(turn=one)
            return f"Forgotten for good: turn {', '.join(map(str, chosen))}.{rest}"

    async def _arun(
        self,
        *,
        config: RunnableConfig,
        match: str | None = None,
        turn: int | None = None,
        confirm: bool = False,
    ) -> str:
        return await in_worker(lambda: self._run(config=config, match=match, turn=turn, confirm=confirm))


_STAYS = "\nTurn {turn}, in which this is asked, holds the text too and stays; forget it by its number later."


def _asking(memory: AgentMemory, tool: str) -> int | None:
    """The newest turn if it is the one that called this tool: it is still under way, its result is to follow."""
    last = memory.history(limit=1)
    if not last or not last[-1].messages:
        return None
    message = last[-1].messages[-1]
    calls = [call["function"]["name"] for call in message.get("tool_calls") or ()]
    called = tool in calls or f'"{tool}"' in str(message.get("content") or "")
    return last[-1].turn if message["role"] == "assistant" and called else None


def _holds(turn: HistoryTurn, note: dict[str, Any]) -> bool:
    return any(message.get("content") == note["content"] for message in turn.messages)


def _summary(turn: HistoryTurn) -> str:
    said = [m for m in turn.messages if str(m.get("content") or "").strip()]
    return "\n".join(_line(turn, str(message["role"]), str(message["content"])) for message in said)


def _line(turn: HistoryTurn, role: str, text: str) -> str:
    words = " ".join(text.split())
    shown = words if len(words) <= SHOWN else words[:SHOWN].rsplit(" ", 1)[0] + " …"
    return f"turn {turn.turn}, {turn.created_at[:10]}, {role}: {shown}"

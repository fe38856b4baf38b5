"""What the callbacks do with the calls they follow: write them, hold them back, or have them written later.

Joins the recorder and the feed. Knows nothing of LangChain's callback classes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypedDict
from uuid import UUID

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from agentmem import AgentMemory, ClosedError, ConfigError, LanguageModel, MemoryConfig
from agentmem.store.base import Home
from langchain_agentmem.addressing import INTERNAL
from langchain_agentmem.agent_access import AgentAccess
from langchain_agentmem.call_recorder import CallRecorder, ModelCall, Question
from langchain_agentmem.memory_feed import MemoryFeed, NotRecorded, OnError
from langchain_agentmem.pool import Opening

Checkpoint = Literal["chain", "turn", "off"]


class RecordingKeywords(TypedDict, total=False):
    """The keyword arguments of the callbacks, as a type."""

    agent_id: str | None
    home: str | Path | Home | None
    model: str | Path | LanguageModel | None
    config: MemoryConfig | None
    wait: float
    checkpoint: Checkpoint
    on_error: OnError
    background: bool


class Background:
    """One worker thread, which is waited for when the interpreter ends."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="agentmem-feed")
        self._lock = threading.Lock()
        self._unseen: list[Future[None]] = []
        self._stopped = False

    def write(self, feed: MemoryFeed, calls: Sequence[ModelCall]) -> bool:
        """Have it written later, in the order of these calls; False after ``stop``: nothing is taken any more."""
        with self._lock:
            if self._stopped:
                return False
            self._unseen = [one for one in self._unseen if not (one.done() and one.exception() is None)]
            self._unseen.append(self._worker.submit(feed.write, calls))
            return True

    def wait(self, timeout: float | None) -> None:
        """Until all is written. Raises the first error, with ``on_error="raise"``, and TimeoutError."""
        with self._lock:
            behind_all = None if self._stopped else self._worker.submit(int)  # first in, first out
        if behind_all is not None:
            behind_all.result(timeout)
        with self._lock:
            unseen, self._unseen = self._unseen, []
        for one in unseen:
            if one.done():
                one.result()
            else:
                self._unseen.append(one)

    def stop(self) -> None:
        """Take nothing more, and wait for what was taken."""
        with self._lock:
            self._stopped = True
        self._worker.shutdown(wait=True)


class Recording:
    """Base of the callbacks; see :class:`langchain_agentmem.AgentMemoryCallback` for the arguments."""

    def __init__(
        self,
        memory: AgentMemory | None = None,
        *,
        agent_id: str | None = None,
        home: str | Path | Home | None = None,
        model: str | Path | LanguageModel | None = None,
        config: MemoryConfig | None = None,
        wait: float = 60.0,
        checkpoint: Checkpoint = "chain",
        on_error: OnError = "warn",
        background: bool = False,
    ) -> None:
        super().__init__()
        if checkpoint not in {"chain", "turn", "off"}:
            raise ConfigError(f"checkpoint={checkpoint!r}: use 'chain', 'turn' or 'off'")
        opening = None if agent_id is None else Opening(agent_id, home, model, config, wait=wait)
        self._feed = MemoryFeed(AgentAccess(memory, opening), on_error)
        self._recorder = CallRecorder(at_once=checkpoint == "turn")
        self._holds = checkpoint == "off"
        self._held: deque[Sequence[ModelCall]] = deque()
        self._background = Background() if background else None
        self._closed = False
        self.raise_error = on_error == "raise"
        self.run_inline = True  # events are cheap, and their order matters

    @property
    def agent_id(self) -> str:
        """The agent that is fed."""
        return self._feed.agent_id

    @property
    def errors(self) -> list[NotRecorded]:
        """What could not be recorded, oldest first, each with the agent, the messages and the reason."""
        return self._feed.errors

    @property
    def last_state_id(self) -> str | None:
        """The state after the turn that was recorded last, for ``AgentMemory.rewind``; None before the first."""
        return self._feed.last_state_id

    def flush(self, timeout: float | None = None) -> None:
        """Write what ``checkpoint="off"`` held back, and wait for what is written in the background.

        Chains that have not ended are left out.

        Args:
            timeout: seconds to wait for the background; None: as long as it takes.

        Raises:
            TimeoutError: the background was not done in time; it goes on.
            Exception: what went wrong, with ``on_error="raise"``.
        """
        while (calls := self._next_held()) is not None:
            self._write(calls)
        if self._background is not None:
            self._background.wait(timeout)

    def close(self) -> None:
        """Flush, and stop the background. What ends later is not recorded, and is kept in ``errors``."""
        try:
            self.flush()
        finally:
            self._closed = True
            if self._background is not None:
                self._background.stop()

    # -- events, in terms of the recorder; each returns the calls that may be kept now -----------------

    def _began(self, run_id: UUID, parent_run_id: UUID | None) -> None:
        self._recorder.began(run_id, parent_run_id)

    def _asked(
        self,
        messages: Sequence[BaseMessage],
        run_id: UUID,
        parent_run_id: UUID | None,
        metadata: Mapping[str, Any] | None,
    ) -> None:
        noted = metadata or {}
        if any(mark in noted for mark in INTERNAL):
            self._recorder.began(run_id, parent_run_id)
            return
        thread = noted.get("thread_id")
        question = Question(tuple(messages), None if thread is None else str(thread))
        self._recorder.asked(run_id, parent_run_id, question)

    def _answered(self, response: LLMResult, run_id: UUID) -> list[ModelCall]:
        return self._recorder.answered(run_id, _answer_of(response))

    def _ended(self, run_id: UUID) -> list[ModelCall]:
        return self._recorder.ended(run_id)

    def _failed(self, run_id: UUID, error: BaseException) -> list[ModelCall]:
        return self._recorder.failed(run_id, error)

    def _keep(self, calls: Sequence[ModelCall]) -> None:
        """Write calls that may be kept, or hold them until ``flush``."""
        if calls and self._holds:
            self._held.append(calls)
        elif calls:
            self._write(calls)

    def _write(self, calls: Sequence[ModelCall]) -> None:
        taken = not self._closed
        if taken and self._background is not None:
            taken = self._background.write(self._feed, calls)
        elif taken:
            self._feed.write(calls)
        if not taken:
            error = ClosedError(f"the callback of agent {self.agent_id!r} was closed; make a new one")
            self._feed.lost(NotRecorded(self.agent_id, (), error))

    def _next_held(self) -> Sequence[ModelCall] | None:
        try:
            return self._held.popleft()
        except IndexError:  # there is none left; another thread may flush as well
            return None


def _answer_of(response: LLMResult) -> BaseMessage | None:
    """The first candidate; None if there is none."""
    candidates = response.generations[0] if response.generations else []
    if not candidates:
        return None
    first = candidates[0]
    return first.message if isinstance(first, ChatGeneration) else AIMessage(first.text)

"""Which model calls belong together, and when they are over: LangChain's events as whole, finished conversations.

The calls of one root run are handed out together when it ended well and none of its model runs is still open. A
stream that is closed early ends its root first and its model run later, or never well. What failed or was cancelled
takes everything below it along, so that a retried or fallen-back chain leaves the calls of the attempt that worked.
Knows no memory and reads no message.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from langchain_core.messages import BaseMessage

_PASSED_ON = "ParentCommand"
"""The exception by which a LangGraph subgraph hands over to its parent: an end, not a failure."""


@dataclass(frozen=True)
class Question:
    """What a model was sent."""

    messages: Sequence[BaseMessage]
    thread: str | None


@dataclass(frozen=True)
class ModelCall:
    """A finished call: what a model was sent, and what it answered."""

    question: Question
    answer: BaseMessage


@dataclass
class _Root:
    id: UUID
    open: dict[UUID, tuple[tuple[UUID, ...], Question]] = field(default_factory=dict)
    """Model runs under way: the runs they stand in, and what was asked."""
    calls: list[tuple[tuple[UUID, ...], ModelCall]] = field(default_factory=list)
    runs: set[UUID] = field(default_factory=set)
    ended: bool = False

    @property
    def over(self) -> bool:
        return self.ended and not self.open

    def drop(self, run_id: UUID) -> None:
        """Leave out every call in that run, finished or not."""
        self.open = {one: held for one, held in self.open.items() if run_id not in held[0]}
        self.calls = [held for held in self.calls if run_id not in held[0]]


class CallRecorder:
    """Follows runs from their start to their end. Threads may share it.

    Args:
        at_once: hand out each call as soon as it is answered, instead of with its root.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self._at_once = at_once
        self._lock = threading.Lock()
        self._places: dict[UUID, tuple[_Root, tuple[UUID, ...]]] = {}

    def began(self, run_id: UUID, parent_id: UUID | None) -> None:
        """A chain, tool or retriever started. Without a parent that is known here it is a root."""
        with self._lock:
            self._enter(run_id, parent_id)

    def asked(self, run_id: UUID, parent_id: UUID | None, question: Question) -> None:
        """A model started."""
        with self._lock:
            root, path = self._enter(run_id, parent_id)
            root.open[run_id] = (path, question)

    def answered(self, run_id: UUID, answer: BaseMessage | None) -> list[ModelCall]:
        """A model ended (None: without a usable answer). Returns the calls that may be kept now."""
        with self._lock:
            if run_id not in self._places:
                return []
            root, path = self._places[run_id]
            _, question = root.open.pop(run_id, (path, None))
            if question is not None and answer is not None:
                root.calls.append((path, ModelCall(question, answer)))
            return self._leave(run_id)

    def ended(self, run_id: UUID) -> list[ModelCall]:
        """A chain, tool or retriever ended. Returns the calls that may be kept now."""
        with self._lock:
            return self._leave(run_id)

    def failed(self, run_id: UUID, error: BaseException) -> list[ModelCall]:
        """A run failed or was cancelled. Returns the calls that may be kept now: other runs of an ended root."""
        with self._lock:
            passed_on = any(kind.__name__ == _PASSED_ON for kind in type(error).__mro__)
            if run_id in self._places and not passed_on:
                self._places[run_id][0].drop(run_id)
            return self._leave(run_id)

    def _enter(self, run_id: UUID, parent_id: UUID | None) -> tuple[_Root, tuple[UUID, ...]]:
        held = self._places.get(parent_id) if parent_id is not None else None
        root, path = held if held is not None else (_Root(run_id), ())
        self._places[run_id] = place = (root, (*path, run_id))
        root.runs.add(run_id)
        return place

    def _leave(self, run_id: UUID) -> list[ModelCall]:
        held = self._places.get(run_id)
        if held is None:
            return []
        root, _ = held
        if run_id == root.id:
            root.ended = True
        else:
            del self._places[run_id]
            root.runs.discard(run_id)
        done = [call for _, call in root.calls] if root.over or self._at_once else []
        if done:
            root.calls = []
        if root.over:
            for run in root.runs:
                del self._places[run]
            root.runs.clear()
        return done

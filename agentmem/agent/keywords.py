"""The keyword options of the talking verbs, as types: what an editor offers and a type checker checks.

Values are checked where they are used. Knows nothing of what they do; see ``AgentMemory.chat``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict

from agentmem.agent.provenance import RecallFrom
from agentmem.engine.sampling import LogitsProcessor
from agentmem.engine.session import Progress


class SamplingKeywords(TypedDict, total=False):
    """How a reply is sampled; the defaults are those of :class:`agentmem.engine.sampling.SamplingOptions`."""

    max_new_tokens: int
    min_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    seed: int | None
    stop: str | Sequence[str]


class OriginKeywords(TypedDict, total=False):
    """Where a turn's words come from, whom it listens to, and until when it is kept."""

    source: str | None
    trust: str | None
    recall_from: RecallFrom | None
    expires_at: datetime | str | None


class TurnKeywords(SamplingKeywords, OriginKeywords, total=False):
    """Options of ``chat`` and ``generate`` that are handed on."""


class ChatKeywords(TurnKeywords, total=False):
    """Options of ``chat`` and ``stream``."""

    remember: bool
    at: datetime | str | None
    speaker: str | None


class GenerateKeywords(TurnKeywords, total=False):
    """Options of ``generate``."""

    tools: Sequence[Mapping[str, Any]] | None
    logits_processor: Sequence[LogitsProcessor]
    remember: bool
    at: datetime | str | None
    after: str | None


class ObserveKeywords(TypedDict, total=False):
    """Options of ``observe``."""

    source: str | None
    role: str
    trust: str | None
    at: datetime | str | None
    expires_at: datetime | str | None
    on_progress: Progress | None

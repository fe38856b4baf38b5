"""A language model that also writes down how surprised it was by each token it reads.

The reading is the memory's own: sinks, recalled blocks and window in sight, chunk by chunk; no further pass is made.
Knows no blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from agentmem import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.engine.session import Session
from agentmem.memory.source import DigestLog, TokenLog
from benchmarks.recall.watched import WatchedModel

TILE = 64
"""Rows of logits in fp32 at once."""


class Surprises:
    """Negative log-likelihoods by position in the log, NaN where no token before was heard."""

    def __init__(self) -> None:
        self.nll: list[float] = []
        self._next: Tensor | None = None

    def hear(self, start: int, ids: Sequence[int], logits: Tensor) -> None:
        """Tokens at [start, start + T) were forwarded; logits (T, V) stand behind each."""
        if start != len(self.nll):
            self._next = None
            self.nll = (self.nll + [math.nan] * start)[:start]
        first = math.nan if self._next is None else _nll(self._next[None], ids[:1])[0]
        self.nll += [first, *_nll(logits[:-1], ids[1:])]
        self._next = logits[-1].clone()


class ListeningModel(WatchedModel):
    """The same weights; while ``surprises`` is set, every forwarded token's surprise goes there."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__(model)
        self.surprises: Surprises | None = None

    @contextmanager
    def turn(
        self, log: TokenLog, digests: DigestLog, config: MemoryConfig, *rest: Any, **more: Any
    ) -> Iterator[Session]:
        """See :meth:`LanguageModel.turn`."""
        with super().turn(log, digests, config, *rest, **more) as session:
            if self.surprises is None:
                yield session
            else:
                yield _ListeningSession(self, session, config, self.surprises)


class _ListeningSession(Session):
    """A session that asks for the logits behind every token."""

    def __init__(
        self, model: LanguageModel, session: Session, config: MemoryConfig, surprises: Surprises
    ) -> None:
        super().__init__(model.binding, session.memory, config.chunk_tokens, model.device)
        self._surprises = surprises

    @torch.inference_mode()
    def _forward(self, ids: Sequence[int]) -> Tensor:
        start = self.memory.length
        row = torch.tensor([list(ids)], dtype=torch.int64, device=self._device)
        logits = self._binding.forward(row, self.memory, logits_to_keep=len(ids))
        self.memory.end()
        self.forwarded += len(ids)
        self._surprises.hear(start, ids, logits[0])
        return logits[0, -1]


def _nll(logits: Tensor, ids: Sequence[int]) -> list[float]:
    """Of each id by its row of logits, (T, V)."""
    wanted = torch.tensor(list(ids), dtype=torch.int64, device=logits.device)
    found: list[float] = []
    for start in range(0, len(ids), TILE):
        part = logits[start : start + TILE].float()
        chosen = part.gather(1, wanted[start : start + TILE, None])[:, 0]
        found += (part.logsumexp(1) - chosen).tolist()
    return found

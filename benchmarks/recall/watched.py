"""A language model whose turns are watched: what the public API does with it is told to a witness.

Knows no measurement.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agentmem import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.engine.session import Session
from agentmem.memory.source import DigestLog, TokenLog
from agentmem.memory.witness import Witness


class WatchedModel(LanguageModel):
    """The same weights, binding and fingerprint as ``model``; buffers of its own.

    ``witness`` may be changed between turns.
    """

    def __init__(self, model: LanguageModel) -> None:
        vars(self).update(vars(model))
        self._workspaces = []
        self.witness: Witness | None = None

    @contextmanager
    def turn(
        self,
        log: TokenLog,
        digests: DigestLog,
        config: MemoryConfig,
        witness: Witness | None = None,
        *rest: Any,
        **more: Any,
    ) -> Iterator[Session]:
        """See :meth:`LanguageModel.turn`."""
        with super().turn(log, digests, config, witness or self.witness, *rest, **more) as session:
            yield session

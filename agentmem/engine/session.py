"""Running the model over one turn's tokens: in chunks while reading, one by one while replying.

Steps are asked for at :class:`~agentmem.engine.steps.Steps`, where those of several agents may become one pass.
Knows no text, no template and no sampling; the past comes from the working memory it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from agentmem.engine.binding import Binding
from agentmem.engine.steps import Steps
from agentmem.memory.working_memory import WorkingMemory

Progress = Callable[[int, int], None]
"""Called with (tokens done, tokens in all)."""


class Session:
    """One turn of one agent on a bound model. ``forwarded`` counts tokens that went through the model."""

    def __init__(
        self,
        binding: Binding,
        memory: WorkingMemory,
        chunk_tokens: int,
        device: torch.device,
        steps: Steps | None = None,
    ) -> None:
        self.memory = memory
        self.forwarded = 0
        self._binding = binding
        self._chunk_tokens = chunk_tokens
        self._device = device
        self._steps = steps

    @property
    def length(self) -> int:
        """Tokens of the agent so far."""
        return self.memory.length

    def read(
        self, ids: Sequence[int], *, measure: bool = False, on_progress: Progress | None = None
    ) -> Tensor:
        """Forward ids in chunks; returns the logits (V,) behind the last one.

        Args:
            ids: at least one token id.
            measure: sample attention shares in the last chunk.
            on_progress: told after each chunk.
        """
        logits = torch.empty(0)
        for start in range(0, len(ids), self._chunk_tokens):
            chunk = ids[start : start + self._chunk_tokens]
            last = start + len(chunk) == len(ids)
            self.memory.begin(len(chunk), measure=measure and last)
            logits = self._forward(chunk)
            if on_progress is not None:
                on_progress(start + len(chunk), len(ids))
        return logits

    def step(self, token: int) -> Tensor:
        """Forward one sampled token; returns the logits (V,) behind it."""
        self.memory.begin(1, decoding=True)
        if self._steps is None:
            return self._forward([token])
        logits = self._steps.step(self, token, self.memory)
        self.memory.end()
        self.forwarded += 1
        return logits

    @torch.inference_mode()
    def _forward(self, ids: Sequence[int]) -> Tensor:
        row = torch.tensor([list(ids)], dtype=torch.int64, device=self._device)
        logits = self._binding.forward(row, self.memory, logits_to_keep=1)
        self.memory.end()
        self.forwarded += len(ids)
        return logits[0, -1]

"""Times each decoded token from inside the sampling loop, the same way for agentmem and for its peer.

A logits processor is called once per token by both; it also keeps stop tokens from ending a reply.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable

import torch
from torch import Tensor


class StepClock:
    """A logits processor: forbids ``stop_ids`` and notes when it was called."""

    def __init__(self, stop_ids: Iterable[int]) -> None:
        self._stop_ids = torch.tensor(sorted(stop_ids), dtype=torch.int64)
        self._moments: list[float] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """See transformers' ``LogitsProcessor``."""
        self._moments.append(time.perf_counter())
        return scores.index_fill(1, self._stop_ids, -torch.inf)

    @property
    def tokens_per_second(self) -> float:
        """Speed after the first token."""
        return (len(self._moments) - 1) / (self._moments[-1] - self._moments[0])

    @property
    def steps(self) -> list[float]:
        """Milliseconds of each step after the first token."""
        pairs = zip(self._moments, self._moments[1:], strict=False)
        return [1000 * (b - a) for a, b in pairs]

    @property
    def median_step(self) -> float:
        """Milliseconds of the ordinary step."""
        return statistics.median(self.steps)

    @property
    def first(self) -> float:
        """When the first token was sampled."""
        return self._moments[0]

    @property
    def last(self) -> float:
        """When the last token was sampled."""
        return self._moments[-1]

    def after(self, moment: float) -> int:
        """How many tokens were sampled after ``moment``."""
        return sum(one > moment for one in self._moments)

    def since(self, moment: float) -> float:
        """Milliseconds from ``moment`` to the first token."""
        return 1000 * (self._moments[0] - moment)

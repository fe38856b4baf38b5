"""While decoding, a layer's choice is kept as long as its queries look like those it was made for.

TokenSelect (arXiv 2411.02886) chooses anew only when the cosine of the query to the one last chosen by falls
below 0.9, since queries of consecutive tokens are alike. Chunks that are read always choose: their mean
queries are alike too, but what they need is not (measured, see docs/LOG.md). Knows no log.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from agentmem.memory.selectors.base import Selector
from agentmem.memory.selectors.two_stage import TwoStage

ALIKE = 0.9
"""Least cosine of queries that share a choice: TokenSelect's."""


@runtime_checkable
class ReusingSelector(Selector, Protocol):
    """A rule that says when a layer's last choice of this turn serves again."""

    def alike(self, now: Tensor, then: Tensor) -> bool:
        """Whether what was chosen for queries ``then`` serves ``now``: one mean row per query head, (Hq, D)."""
        ...


class Reuse(TwoStage):
    """The two-stage rule, asked less often; it is one with a small ``reselect_every`` that this is made for."""

    def __init__(self) -> None:
        super().__init__("two-stage-reuse")

    def alike(self, now: Tensor, then: Tensor) -> bool:
        """By the cosine of all heads' rows, put one behind the other."""
        return bool(torch.cosine_similarity(now.flatten(), then.flatten(), dim=0) >= ALIKE)

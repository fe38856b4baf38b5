"""The mean raw key of a block: the cheapest digest, 1 row. InfLLM's ablation (arXiv 2402.04617, Table 4).

The best key of a block is hidden in the mean: on real pages its top-1 recall is low (ArkVale, Figure 7),
so it is a coarse stage rather than a rule. Knows no rule.
"""

from __future__ import annotations

from torch import Tensor

from agentmem.memory.selectors.base import BlockView
from agentmem.memory.selectors.digests import living_mean, scan


class MeanKey:
    """The mean over living tokens."""

    kind = "mean"
    rows = 1

    def make(self, keys_raw: Tensor, alive: Tensor | None) -> Tensor:
        """See :meth:`BlockDigest.make`; zeros for a block with no living token."""
        return living_mean(keys_raw.float(), alive).to(keys_raw.dtype)[:, :, None]

    def logits(self, queries: Tensor, blocks: BlockView) -> Tensor:
        """Product of the query and the mean."""
        return scan(queries, blocks)

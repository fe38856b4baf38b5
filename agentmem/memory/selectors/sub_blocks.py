"""Several means per block, the best of which counts: R rows. After InfLLM-V2 (arXiv 2509.24663).

There 32-token means at stride 16 are max-pooled to blocks of 64; here a block is cut into R equal runs,
so that a digest depends on its own block alone. Knows no rule.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from agentmem.memory.selectors.base import BlockView
from agentmem.memory.selectors.digests import living_mean, scan


class SubBlockMeans:
    """The means of R runs of a block's tokens."""

    def __init__(self, rows: int) -> None:
        self.kind = f"sub-means-{rows}"
        self.rows = rows

    def make(self, keys_raw: Tensor, alive: Tensor | None) -> Tensor:
        """See :meth:`BlockDigest.make`. A run whose tokens are all forgotten has the block's mean."""
        keys = keys_raw.float()
        whole = living_mean(keys, alive)
        means = []
        for start, stop in self.runs(keys.shape[2]):
            some = None if alive is None else alive[:, start:stop]
            mean = living_mean(keys[:, :, start:stop], some)
            if some is not None:
                mean = torch.where(some.any(-1)[None, :, None], mean, whole)
            means.append(mean)
        return torch.stack(means, dim=2).to(keys_raw.dtype)

    def logits(self, queries: Tensor, blocks: BlockView) -> Tensor:
        """The largest q . mean of a run."""
        return scan(queries, blocks, lanes=self.rows)

    def runs(self, size: int) -> list[tuple[int, int]]:
        """Bounds of the R runs of a block of ``size`` tokens; each holds one at least."""
        cuts = [row * size // self.rows for row in range(self.rows + 1)]
        return [(start, max(stop, start + 1)) for start, stop in pairwise(cuts)]

"""An observer of selections, for measurements: what was asked, what was chosen, what there was to choose from.

Knows no rule and keeps nothing. A working memory without one does no work for it.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import BlockView


class Witness(Protocol):
    """Told of every selection of a turn, once per full layer, whatever the rule; never while all is attended to."""

    def saw(
        self, spec: LayerSpec, queries_raw: Tensor, scaling: float, chosen: Tensor, blocks: BlockView
    ) -> None:
        """One layer's choice for one chunk.

        Args:
            spec: the layer.
            queries_raw: (Hq, T, D), the chunk's queries before RoPE, in the model's dtype.
            scaling: factor on q.k.
            chosen: (Hkv, K) int64, ascending in each row; K is 0 where nothing is recalled.
            blocks: all N blocks, N > 0; valid until this returns. Keys of 64 blocks may be asked for at once.
        """
        ...

"""How the past of one chunk is divided among sinks, recalled blocks and window. Integers only, for all layers.

Knows no buffers and no positions: where the parts stand is the placement's affair.
"""

from __future__ import annotations

from dataclasses import dataclass

from agentmem.memory.blocks import Split
from agentmem.memory.log_blocks import BlocksState


@dataclass(frozen=True)
class Layout:
    """The past [0, split.length) of a chunk, and how long what is laid out from it may be held."""

    split: Split
    dense: bool
    """Everything is attended to; the blocks do not matter."""
    state: BlocksState
    chosen: int
    """K, blocks recalled per KV head; 0 when dense."""
    held_stop: int
    """One past the last token that may be appended before the past is laid out anew."""

    @property
    def length(self) -> int:
        """Tokens of the past."""
        return self.split.length

    @property
    def recalled(self) -> slice:
        """Where the recalled tokens lie in a full layer's buffer: behind the sinks."""
        return slice(self.split.sink_stop, self.split.sink_stop + self.chosen * self.state.grid.size)

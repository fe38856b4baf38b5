"""Which of an open agent's blocks on the device still say what its log says.

A block is named by its place in the log, and what lies there depends on the branch: a rewind, a turn that goes
on from another state, a dropped turn or a rebuild put other tokens at the same place. So each turn asks up to
where the branch it was begun on is the one the blocks were read from, by the ids of states, and what lies
beyond is dropped. What ranges are forgotten or set aside is compared too. Knows no tensors and no model's inside.
"""

from __future__ import annotations

from agentmem.config import MemoryConfig
from agentmem.engine.device_cache import DeviceCache
from agentmem.errors import StateNotFoundError
from agentmem.memory.blocks import BlockGrid
from agentmem.memory.slab import Share
from agentmem.store.base import Store, Turn

STEPS = 64
"""Turns that are looked at, one by one, to find where two branches part; further away nothing is kept."""


class HotBlocks:
    """One open agent's share of its model's device cache. Belongs to the object that opened the agent."""

    def __init__(self) -> None:
        self._share: Share | None = None
        self._grid: BlockGrid | None = None
        self._at: Turn | None = None  # the branch that ends here is the one they are true of
        self._dead: tuple[tuple[int, int], ...] = ()

    def begun(self, cache: DeviceCache, store: Store, config: MemoryConfig) -> Share | None:
        """A turn was begun in the store: the share it may use, true of the store's log.

        None without a cache, and for an agent that recalls nothing (yet): its model's slab is not made for it.
        """
        recalls = config.recall_blocks > 0 and store.log.committed > config.dense_limit
        share = cache.share(self._share, config.block_tokens) if recalls else None
        grid, dead = BlockGrid(config.sink_tokens, config.block_tokens), tuple(store.log.dead)
        if share is not None:
            known = share is self._share and grid == self._grid and dead == self._dead
            share.keep_before(grid.whole_before(shared_tokens(store, self._at, store.head)) if known else 0)
            share.start_turn()
        self._share, self._grid, self._dead, self._at = share, grid, dead, store.head
        return share

    def committed(self, turn: Turn) -> None:
        """The turn that was begun last is part of the branch now."""
        self._at = turn

    def clear(self) -> None:
        """Drop all blocks and overwrite them: what they say was forgotten, or computed anew."""
        if self._share is not None:
            self._share.keep_before(0)

    def close(self) -> None:
        """Let the share go; the slab takes its places back by itself."""
        self._share = None


def shared_tokens(store: Store, one: Turn | None, other: Turn | None) -> int:
    """How many tokens the branches of two turns have in common; fewer where they part too far back to look."""
    for _ in range(STEPS):
        if one is None or other is None:
            return 0
        if one.id == other.id:
            return one.stop if one.state_id == other.state_id else 0
        if one.id > other.id:
            one = _parent(store, one)
        else:
            other = _parent(store, other)
    return 0


def _parent(store: Store, turn: Turn) -> Turn | None:
    try:
        return None if turn.parent is None else store.turn(turn.parent)
    except StateNotFoundError:  # pruned
        return None

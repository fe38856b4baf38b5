"""Which blocks stay on the device, over integers alone: what is held, in which slot, and what leaves first.

Knows no tensors and copies nothing. The policy is InfLLM's (arXiv 2402.04617 §3.3): each use adds 1 to a
score that decays by ``decay`` per step, the lowest score leaves first; ``decay=0`` is plain LRU, ``decay=1``
plain LFU. Equal scores leave the longest unused first, then the lowest number, so equal histories give equal
slots. What is not held need not be: it can be read past the cache, so a small cache is slow and never wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

from agentmem.errors import ConfigError

Integers = NDArray[np.int64]
NOWHERE = -1
"""The slot of a block that is not held."""


@dataclass(frozen=True)
class CacheUse:
    """What a turn found on the device, counted in blocks of one head, keys and values apart."""

    hits: int = 0
    misses: int = 0
    """What was read from the log."""
    bytes_copied: int = 0
    """Bytes that went to the device for them; 0 where host and device are one."""

    @property
    def hit_rate(self) -> float:
        """Part of what was asked for that was resident; 0 when nothing was."""
        return self.hits / max(1, self.hits + self.misses)


class Residency:
    """A fixed number of slots for blocks, any int64 numbers of 0 or more.

    A use is ``find``, then for what was missing ``make_room``, and ``hold`` once its content is there: whatever
    interrupts that, a block is held only if its slot has its content.

    Raises:
        ConfigError: no slots, or a decay outside [0, 1].
    """

    def __init__(self, num_slots: int, *, decay: float = 0.1) -> None:
        if num_slots < 1:
            raise ConfigError(f"num_slots={num_slots}: a residency needs at least one slot")
        if not 0.0 <= decay <= 1.0:
            raise ConfigError(f"decay={decay}: use a value from 0 (LRU) to 1 (LFU)")
        self.num_slots = num_slots
        self.decay = decay
        self.hits = 0
        self.misses = 0
        self._step = 0
        none = np.empty(0, dtype=np.int64)
        self._held: tuple[Integers, Integers] = (
            none,
            none,
        )  # blocks, ascending, and their slots: one assignment
        self._last_use = np.zeros(num_slots, dtype=np.int64)
        self._worth = np.zeros(num_slots)  # log of the score, less what all scores decayed by since step 0

    def __len__(self) -> int:
        return len(self._held[0])

    def __contains__(self, block: int) -> bool:
        return bool(self._locate(np.array([block]))[0] != NOWHERE)

    @property
    def held(self) -> Integers:
        """The blocks that are held, ascending."""
        return self._held[0]

    def find(self, blocks: Integers) -> Integers:
        """Use blocks (n,): their slots (n,), ``NOWHERE`` for those that are not held."""
        self._step += 1
        slots = self._locate(blocks)
        used = slots[slots != NOWHERE]
        self.hits += len(used)
        self.misses += len(slots) - len(used)
        self._score(np.unique(used), self._worth)
        return slots

    def make_room(self, count: int) -> Integers:
        """Up to ``count`` slots to write to; their blocks are held no more. None that this step used is among them."""
        blocks, slots = self._held
        taken = np.zeros(self.num_slots, dtype=np.bool_)
        taken[slots] = True
        free = np.flatnonzero(~taken)
        if count <= len(free):
            return free[:count]
        victims = self._least(count - len(free))
        leaving = np.zeros(self.num_slots, dtype=np.bool_)
        leaving[victims] = True
        stays = ~leaving[slots]
        self._held = (blocks[stays], slots[stays])
        return np.concatenate([free, victims])

    def hold(self, blocks: Integers, slots: Integers) -> None:
        """These blocks (n,), none of them held before and no two equal, now lie in slots that ``make_room`` gave."""
        self._score(slots, np.full(self.num_slots, -np.inf))
        every = np.concatenate([self._held[0], blocks])
        order = every.argsort(kind="stable")
        self._held = (every[order], np.concatenate([self._held[1], slots])[order])

    def drop(self, which: Callable[[Integers], NDArray[np.bool_]]) -> Integers:
        """Hold no more what ``which`` picks of the held blocks (n,); the slots that became free."""
        blocks, slots = self._held
        gone = which(blocks)
        self._held = (blocks[~gone], slots[~gone])
        return slots[gone]

    def _locate(self, asked: Integers) -> Integers:
        blocks, slots = self._held
        if not len(blocks):
            return np.full(len(asked), NOWHERE, dtype=np.int64)
        at = np.searchsorted(blocks, asked).clip(max=len(blocks) - 1)
        return np.where(blocks[at] == asked, slots[at], NOWHERE)

    def _score(self, slots: Integers, before: NDArray[np.float64]) -> None:
        """Add a use now to what slots were worth ``before``."""
        self._last_use[slots] = self._step
        if self.decay == 0.0:
            self._worth[slots] = self._step
        else:  # score * decay**(steps since) + 1, as logs that later steps leave in the same order
            self._worth[slots] = np.logaddexp(before[slots], -self._step * log(self.decay))

    def _least(self, count: int) -> Integers:
        """Up to ``count`` slots of the blocks that are worth least, of those this step did not use."""
        blocks, slots = self._held
        idle = self._last_use[slots] < self._step
        blocks, slots = blocks[idle], slots[idle]
        worth = self._worth[slots]
        if count < len(slots):  # only what is worth at most as much as the last to leave is put in order
            near = worth <= np.partition(worth, count - 1)[count - 1]
            blocks, slots, worth = blocks[near], slots[near], worth[near]
        return slots[np.lexsort((blocks, self._last_use[slots], worth))[:count]]

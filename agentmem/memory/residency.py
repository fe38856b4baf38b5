"""Which blocks stay on the device: least-recently/frequently-used, over integer block ids.

Knows no tensors and copies nothing: it hands out slot numbers and says whose content must be loaded.
The policy is InfLLM's (arXiv 2402.04617 §3.3): each use adds 1 to a score that decays by ``decay`` per
step, the lowest score leaves first; ``decay=0`` is plain LRU, ``decay=1`` plain LFU. Ties leave oldest
first, so equal histories give equal slots.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agentmem.errors import ConfigError


@dataclass(frozen=True)
class Placement:
    """Where the asked blocks are: ``slots`` for all of them, ``load`` for those to be copied in first."""

    slots: Mapping[int, int]
    load: Mapping[int, int]
    evicted: tuple[int, ...]


class Residency:
    """A fixed number of slots for blocks; ``place`` makes a set of blocks resident at once.

    Raises:
        ConfigError: no slots, a decay outside [0, 1], or more blocks asked at once than slots.
    """

    def __init__(self, num_slots: int, *, decay: float = 0.1) -> None:
        if num_slots < 1:
            raise ConfigError(f"num_slots={num_slots}: a residency needs at least one slot")
        if not 0.0 <= decay <= 1.0:
            raise ConfigError(f"decay={decay}: use a value from 0 (LRU) to 1 (LFU)")
        self.num_slots = num_slots
        self.decay = decay
        self._slot_of: dict[int, int] = {}
        self._score: dict[int, float] = {}
        self._last_use: dict[int, int] = {}
        self._free = list(range(num_slots - 1, -1, -1))
        self._step = 0
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._slot_of)

    def __contains__(self, block: int) -> bool:
        return block in self._slot_of

    def place(self, blocks: Iterable[int]) -> Placement:
        """Make all these blocks resident; none of them is evicted for another of them."""
        asked = list(dict.fromkeys(blocks))
        if len(asked) > self.num_slots:
            raise ConfigError(
                f"{len(asked)} blocks asked at once, but there are {self.num_slots} slots; "
                "give the residency at least as many slots as one selection has blocks"
            )
        self._step += 1
        missing = [block for block in asked if block not in self._slot_of]
        self.hits += len(asked) - len(missing)
        self.misses += len(missing)
        evicted = self._make_room(len(missing), keep=set(asked))
        load = {}
        for block in missing:
            load[block] = self._slot_of[block] = self._free.pop()
        for block in asked:
            self._score[block] = self._decayed(block) + 1.0
            self._last_use[block] = self._step
        return Placement({block: self._slot_of[block] for block in asked}, load, evicted)

    def drop(self, blocks: Iterable[int]) -> None:
        """Forget blocks whose content is no longer valid; unknown ones are fine."""
        for block in blocks:
            if block in self._slot_of:
                self._release(block)

    def _decayed(self, block: int) -> float:
        """The score of a block now: decay to the power of the steps since its last use."""
        if block not in self._score:
            return 0.0
        return self._score[block] * self.decay ** (self._step - self._last_use[block])

    def _make_room(self, wanted: int, keep: set[int]) -> tuple[int, ...]:
        short = wanted - len(self._free)
        if short <= 0:
            return ()
        idle = [block for block in self._slot_of if block not in keep]
        idle.sort(key=lambda block: (self._decayed(block), self._last_use[block], block))
        for block in idle[:short]:
            self._release(block)
        return tuple(idle[:short])

    def _release(self, block: int) -> None:
        self._free.append(self._slot_of.pop(block))
        del self._score[block], self._last_use[block]

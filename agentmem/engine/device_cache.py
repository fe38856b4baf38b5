"""How much of a model's device may hold blocks of its agents' histories, and the slab made within that.

A setting of the machine, not of a memory: it never changes a result. Knows no agent.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence

import torch

from agentmem.errors import ConfigError
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.slab import Share, Slab, smallest_budget

SHARE_OF_FREE = 8
"""Left to choose, a GPU's slab takes one part in so many of the memory that is free when it is first needed."""
AT_MOST = 4 << 30
"""Bytes that it takes then, whatever is free."""


class DeviceCache:
    """The slab of one model, made when an agent first needs it. All agents of the model share its budget.

    There is none until ``set_budget`` is called: no GPU has yet run its tests (``pytest -m gpu``).

    It serves blocks of one length: that of the agent that came first, until nobody uses it. Agents with another
    ``block_tokens`` read past it, to the same results.
    """

    def __init__(self, layers: Sequence[LayerSpec], dtype: torch.dtype, device: torch.device) -> None:
        self._layers = layers
        self._dtype = dtype
        self._device = device
        self._lock = threading.Lock()
        self._budget: int | None = 0
        self._slab: Slab | None = None
        self._leaving: weakref.ref[Slab] | None = None  # turns that have begun may still use it

    @property
    def device_bytes(self) -> int:
        """What it takes of the device now."""
        slab = self._slab
        return 0 if slab is None else slab.device_bytes

    def set_budget(self, budget: int | None) -> None:
        """From each agent's next turn on: bytes, 0 for no cache, None for a part of what is free.

        Raises:
            ConfigError: it is negative.
        """
        if budget is not None and budget < 0:
            raise ConfigError(
                f"a device cache of {budget} bytes: give it bytes, 0 for no cache, or None for a part of what is free"
            )
        with self._lock:
            if self._slab is not None:
                self._leaving = weakref.ref(self._slab)
            self._budget, self._slab = budget, None

    def share(self, held: Share | None, block_tokens: int) -> Share | None:
        """An agent's share: the one it holds if that still counts, else a new and empty one; None: no cache."""
        with self._lock:
            if (
                held is not None
                and self._slab is not None
                and held.slab is self._slab
                and held.slab.block_tokens == block_tokens
            ):
                return held
            if self._slab is not None and self._slab.block_tokens != block_tokens and not self._slab.shared:
                self._slab = None
            if self._slab is None:
                self._slab = self._make(block_tokens)
            if self._slab is None or self._slab.block_tokens != block_tokens:
                return None
            return self._slab.share()

    def _make(self, block_tokens: int) -> Slab | None:
        """A slab within the budget; None where that has no room, or while turns still use the one before."""
        if self._leaving is not None and self._leaving() is not None:
            return None
        budget = default_budget(self._device) if self._budget is None else self._budget
        if budget < smallest_budget(self._layers, block_tokens, self._dtype):
            return None
        try:
            return Slab(self._layers, block_tokens, budget, self._dtype, self._device)
        except torch.cuda.OutOfMemoryError as error:
            if self._budget is None:  # nobody asked for it
                return None
            raise ConfigError(
                f"a device cache of {budget} bytes: {self._device} has not that much memory free; give it less"
            ) from error


def default_budget(device: torch.device) -> int:
    """Bytes where no number was given: on the CPU none, since the page cache is the tier there."""
    if device.type != "cuda":
        return 0
    free, _ = torch.cuda.mem_get_info(device)
    return min(free // SHARE_OF_FREE, AT_MOST)

"""Memory for a rule's arithmetic, kept from one use to the next. Knows nothing of what is put there.

First-touching fresh memory can cost many times the arithmetic done on it, and a selection runs once per
layer and chunk with tensors of nearly the same size each time. That size grows with the history (8 bytes
per query row and block, 0.5 % of the K/V of the default model), so it is kept for a turn and no longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor


class Rooms:
    """Reused flat buffers by name and dtype; they grow by eighths and never shrink. One user at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._rooms: dict[tuple[str, torch.dtype], Tensor] = {}

    def room(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Uninitialised memory of that shape; valid until the same name and dtype is asked for again."""
        size = prod(shape)
        found = self._rooms.get((name, dtype))
        if found is None or found.numel() < size:
            self._rooms.pop((name, dtype), None)
            found = None  # both are let go before the larger one is taken
            # Born outside inference mode: a tensor born inside could not be written outside later.
            with torch.inference_mode(False):
                found = torch.empty(size + size // 8, dtype=dtype, device=self._device)
            self._rooms[name, dtype] = found
        return found[:size].view(*shape)

    def clear(self) -> None:
        """Let go of all memory; what was lent before stays valid for whoever still holds it."""
        self._rooms.clear()

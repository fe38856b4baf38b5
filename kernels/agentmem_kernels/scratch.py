"""Memory that a kernel may work in: lent by whoever calls, or new at each call. Knows no kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Scratch(Protocol):
    """Where intermediate results may lie."""

    def room(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Uninitialised memory, valid until the same name is asked for again."""
        ...


class Fresh:
    """New memory at each call."""

    def room(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:  # a Scratch
        """Of that shape."""
        return torch.empty(tuple(shape), dtype=dtype)

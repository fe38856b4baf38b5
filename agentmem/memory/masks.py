"""What new tokens may see: causal and sliding-window masks, and forgotten tokens.

Masks are additive (0 or -inf) in the query's dtype. Knows no log.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem.memory.buffers import LayerBuffer


class Masks:
    """Builds masks, and keeps the newest plain ones, since all layers of a chunk share them."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int, int | None, torch.dtype], Tensor] = {}

    def visible(
        self, buffer: LayerBuffer, new_tokens: int, dtype: torch.dtype
    ) -> tuple[slice, Tensor | None]:
        """Which part of a buffer T new tokens (its last T) can see, and the mask over that part.

        Returns:
            A slice of S buffer positions, and None or a mask broadcastable to (Hq, T, S).
        """
        window = buffer.spec.window
        start = 0 if window is None else max(0, buffer.used - (window - 1 + new_tokens))
        seen = slice(start, buffer.used)
        mask = None
        if new_tokens > 1:
            mask = self._causal(new_tokens, buffer.used - start, window, buffer.keys_rot.device, dtype)
        if buffer.any_dead:
            gone = torch.zeros(buffer.dead[:, seen].shape, dtype=dtype, device=buffer.dead.device)
            gone.masked_fill_(buffer.dead[:, seen], -torch.inf)
            group = buffer.spec.num_q_heads // buffer.spec.num_kv_heads
            per_head = gone.repeat_interleave(group, dim=0)[:, None]  # (Hq, 1, S)
            mask = per_head if mask is None else mask + per_head
        return seen, mask

    def _causal(self, T: int, S: int, window: int | None, device: torch.device, dtype: torch.dtype) -> Tensor:
        """(T, S): the last T keys are the queries' own; a window counts the query itself."""
        key = (T, S, window, dtype)
        if key not in self._kept:
            if len(self._kept) > 3:
                self._kept.clear()
            query = torch.arange(S - T, S, device=device)[:, None]
            kv = torch.arange(S, device=device)[None]
            hidden = kv > query
            if window is not None:
                hidden |= kv <= query - window
            self._kept[key] = torch.zeros(T, S, dtype=dtype, device=device).masked_fill_(hidden, -torch.inf)
        return self._kept[key]

"""The slow obvious memory: keep every raw key, rotate all of them each time, attend to all that is visible."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from agentmem.engine.binding import Binding
from agentmem.memory.rotation import LayerSpec
from agentmem_kernels import reference


class DenseOracle:
    """An attention context over a growing log of raw keys and values, with the model's own windows."""

    def __init__(self, layers: Sequence[LayerSpec]) -> None:
        self.layers = layers
        self.keys_raw: list[Tensor | None] = [None] * len(layers)
        self.values: list[Tensor | None] = [None] * len(layers)

    def attend(
        self,
        layer: int,
        q_raw: Tensor,
        k_raw: Tensor,
        v: Tensor,
        *,
        scaling: float,
        softcap: float | None,
        sinks: Tensor | None,
    ) -> Tensor:
        """Append, rotate everything to its absolute position, mask, attend."""
        spec = self.layers[layer]
        keys = self.keys_raw[layer] = _joined(self.keys_raw[layer], k_raw)
        values = self.values[layer] = _joined(self.values[layer], v)
        T, S = q_raw.shape[2], keys.shape[2]
        q, keys_rot = q_raw, keys
        if spec.rotary is not None:
            q = spec.rotary.rotate(q_raw, torch.arange(S - T, S))
            keys_rot = spec.rotary.rotate(keys, torch.arange(S))
        seen_from = torch.arange(S - T, S).unsqueeze(1)
        position = torch.arange(S).unsqueeze(0)
        visible = position <= seen_from
        if spec.window is not None:
            visible &= position > seen_from - spec.window
        mask = torch.zeros(T, S).masked_fill(~visible, float("-inf")).to(q.device)
        return reference.attend(q, keys_rot, values, scaling=scaling, mask=mask, softcap=softcap, sinks=sinks)


def run(binding: Binding, ids: Tensor, chunks: Sequence[int], oracle: DenseOracle | None = None) -> Tensor:
    """Logits (1, T, V) of all tokens, forwarded in the given chunks, the rest one at a time."""
    context = oracle or DenseOracle(binding.layers)
    rest = ids.shape[1] - sum(chunks)
    pieces, start = [], 0
    for size in [*chunks, *[1] * rest]:
        pieces.append(binding.forward(ids[:, start : start + size], context, logits_to_keep=size))
        start += size
    return torch.cat(pieces, dim=1)


def _joined(old: Tensor | None, new: Tensor) -> Tensor:
    return new if old is None else torch.cat([old, new], dim=2)

"""Where the channels of a model's keys lie and how far they reach: what keys are rounded to one byte by.

Measured once per model on a short text of our own, before an agent of ``kv_dtype="int8"`` is made; the agent keeps
what it was made with. How far off rounded keys are: ``python -m benchmarks.kv_error``.
Knows no log and no agent.
"""

from __future__ import annotations

import threading
from typing import Final

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from agentmem.engine.binding import Binding
from agentmem.memory.rotation import LayerSpec
from agentmem_kernels import attend

TOKENS: Final = 256
LEAST_FACTOR: Final = 1e-6
"""A channel that is the same in every token still needs a factor that can be divided by."""

TEXT: Final = """\
On the morning of 3 May, Ada wrote to her brother: "The bridge at Kilmore is closed again, so I shall come by the
northern road and stay until Tuesday." He answered that the guest room had been painted, that the dog was well, and
that nobody had seen the key to the boathouse since winter.

def total(prices: list[float], discount: float = 0.1) -> float:
    \"\"\"What a customer pays.\"\"\"
    return round(sum(prices) * (1 - discount), 2)  # VAT is added elsewhere

User: How far is it from Lyon to Turin, and is there a train?
Assistant: About 310 km by road. There are 3 direct trains a day; the fastest takes 3 h 45 min and costs 39 EUR.

| name  | city   | born |
|-------|--------|------|
| Noor  | Utrecht| 1984 |
| Tomás | Sevilla| 1991 |

Water boils at 100 °C at sea level, but at 93 °C in La Paz. Meine Schwester wohnt in Köln; elle travaille à Paris.
{"id": 4711, "tags": ["red", "late"], "paid": false, "note": null} See https://example.org/orders?id=4711 for more.
In short: first measure, then cut; and if the second measurement differs from the first, measure once more.
"""


def key_channels(binding: Binding, tokenizer: PreTrainedTokenizerBase) -> bytes:
    """Of every channel its mean, then of every one its spread around it: (layers, Hkv, D) flat in bfloat16."""
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"][: min(TOKENS, binding.max_positions)]
    context = _Listening(binding.layers, len(ids))
    binding.forward(torch.tensor([ids], dtype=torch.int64, device=binding.device), context)
    offsets, factors = [], []
    for keys_raw in context.keys_raw:  # (Hkv, T, D) each
        offset = keys_raw.mean(1).bfloat16()
        spread = (keys_raw - offset.float()[:, None]).square().mean(1).sqrt()
        offsets.append(offset.flatten())
        factors.append(spread.clamp(min=LEAST_FACTOR).bfloat16().flatten())
    flat = torch.cat([*offsets, *factors])
    return flat.view(torch.uint8).numpy().tobytes()


class MeasuredKeys:
    """One model's key channels, measured when they are first asked for."""

    def __init__(self, binding: Binding, tokenizer: PreTrainedTokenizerBase) -> None:
        self._binding = binding
        self._tokenizer = tokenizer
        self._measuring = threading.Lock()
        self._channels: bytes | None = None

    def channels(self) -> bytes:
        """See :func:`key_channels`."""
        with self._measuring:
            if self._channels is None:
                self._channels = key_channels(self._binding, self._tokenizer)
            return self._channels


class _Listening:
    """Plain attention over one chunk from position 0 on, as the model was trained; keeps the raw keys, in fp32."""

    def __init__(self, specs: tuple[LayerSpec, ...], tokens: int) -> None:
        self.keys_raw: list[Tensor] = [torch.empty(0) for _ in specs]
        self._specs = specs
        self._positions = range(tokens)
        at = torch.arange(tokens)
        self._distance = at[:, None] - at[None]  # (T, T): how far behind a query a key lies

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
        """See :class:`agentmem.engine.attention.AttentionContext`."""
        spec = self._specs[layer]
        self.keys_raw[layer] = k_raw[0].detach().float().cpu()
        hidden = self._distance < 0
        if spec.window is not None:
            hidden = hidden | (self._distance >= spec.window)
        mask = torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf).to(q_raw)
        if spec.rotary is not None:
            q_raw = spec.rotary.rotate(q_raw, self._positions)
            k_raw = spec.rotary.rotate(k_raw, self._positions)
        return attend(q_raw, k_raw, v, scaling=scaling, mask=mask, softcap=softcap, sinks=sinks)

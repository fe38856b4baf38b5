"""Long histories without reading them: random keys and values, written through the store as turns are.

Time does not depend on what keys and values hold, so decoding, reading one more chunk, resuming and memory can be
measured at a million tokens without forwarding a million tokens. Knows no clock and judges nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from agentmem import AgentMemory, MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.memory.source import KVLayout
from agentmem.store.base import Home, NewTurn, Store, Turn

PART = 4_096
"""Tokens of one synthetic turn: what one part of a long observation is."""
DATE = "2026-01-01T00:00:00+00:00"

Tell = Callable[[int, int], None]
"""Told (tokens written, tokens in all)."""


class RandomKV:
    """Random keys and values of any number of tokens, cut out of one pool, so that they cost no time to make."""

    def __init__(self, layout: KVLayout, seed: int = 0) -> None:
        self._layout = layout
        self._chance = torch.Generator().manual_seed(seed)
        heads, dim = (max(numbers) for numbers in zip(*layout.layers, strict=True))
        pool = torch.randn(heads, 3 * PART, dim, generator=self._chance)
        self._pool = pool.to(layout.dtype)

    def take(self, tokens: int) -> tuple[list[Tensor], list[Tensor]]:
        """Keys and values per layer, (Hkv, tokens, D); at most ``PART`` tokens."""
        return tuple(  # type: ignore[return-value]
            [self._cut(heads, tokens, dim) for heads, dim in self._layout.layers] for _ in ("keys", "values")
        )

    def _cut(self, heads: int, tokens: int, dim: int) -> Tensor:
        start = int(torch.randint(0, self._pool.shape[1] - tokens, (1,), generator=self._chance))
        return self._pool[:heads, start : start + tokens, :dim]


def grow(
    home: Home,
    model: LanguageModel,
    agent: str,
    lengths: Sequence[int],
    name_of: Callable[[int], str],
    tell: Tell = lambda _done, _all: None,
    config: MemoryConfig | None = None,
) -> None:
    """Write one growing history and keep a fork of it at each length, digests included.

    A history of N tokens holds N to within a short turn: the first one, which brings the chat template's
    opening, and the last one, which makes the digests, are the model's own.
    """
    longest = max(lengths)
    with AgentMemory.resume(agent, model=model, home=home, config=config) as memory:
        memory.append([{"role": "user", "content": "What follows was never read."}])
    random = RandomKV(model.layout)
    for length in sorted(lengths):
        store = home.open(agent)
        try:
            _fill(store, random, length, lambda done: tell(done, longest))
        finally:
            store.close()
        with AgentMemory.resume(agent, model=model, home=home) as memory:
            memory.append([{"role": "user", "content": "So much for that."}])
            memory.fork(name_of(length)).close()


def _fill(store: Store, random: RandomKV, length: int, tell: Callable[[int], None]) -> None:
    head = store.head
    assert head is not None, "a synthetic history goes on from a real turn"
    while store.log.committed < length:
        tokens = min(PART, length - store.log.committed)
        store.begin()
        store.log.append(*random.take(tokens))
        store.commit(_turn(head, tokens))
        tell(store.log.committed)


def _turn(like: Turn, tokens: int) -> NewTurn:
    return NewTurn(
        state_id=f"synthetic-{uuid.uuid4().hex}",
        kind="append",
        messages=[{"role": "user", "content": "synthetic"}],
        token_ids=[5] * tokens,
        pending=like.pending,
        created_at=DATE,
        settings=like.settings,
    )

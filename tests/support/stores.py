"""Small agents for the store's tests: a layout of two unequal layers, and K/V that name their token."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from agentmem.memory.source import KVLayout, TokenLog
from agentmem.store import Home, NewTurn, Store, Turn

LAYOUT = KVLayout(((2, 4), (1, 8)), torch.float32)
FINGERPRINT = {"weights": "abc", "rope": "def"}
AT = "2026-01-02T03:04:05+00:00"
SEGMENT_TOKENS = 64
DIGEST_BLOCKS = 4
"""Sizes that make a handful of tokens roll over into a second file."""


def memory_folder() -> str | None:
    """A folder in memory where there is one: syncing a disk is most of the time these tests take."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def create(home: Home, agent_id: str = "ada", layout: KVLayout = LAYOUT) -> Store:
    """A new, empty agent."""
    return home.create(
        agent_id, fingerprint=FINGERPRINT, layout=layout, model="tiny", facts={"chunk_tokens": 512}
    )


def kv(seed: int, count: int, layout: KVLayout = LAYOUT) -> tuple[list[Tensor], list[Tensor]]:
    """Random keys and values of ``count`` tokens, the same for the same seed."""
    random = torch.Generator().manual_seed(seed)

    def one(heads: int, dim: int) -> Tensor:
        return torch.randn(heads, count, dim, generator=random).to(layout.dtype)

    return [one(*shape) for shape in layout.layers], [one(*shape) for shape in layout.layers]


def digests(seed: int, count: int, layout: KVLayout = LAYOUT) -> list[Tensor]:
    """Random digests of ``count`` blocks."""
    return kv(seed + 1_000_000, count, layout)[0]


def new_turn(seed: int, count: int, **fields: Any) -> NewTurn:
    """A turn of ``count`` tokens, ready to be committed; ``fields`` replace what it is made of."""
    made: dict[str, Any] = {
        "state_id": f"state-{seed}",
        "kind": "chat",
        "messages": [{"role": "user", "content": f"message number{seed}"}],
        "token_ids": [seed * 1000 + i for i in range(count)],
        "pending": [seed],
        "created_at": AT,
    }
    return NewTurn(**{**made, **fields})


def add_turn(store: Store, seed: int, count: int, *, blocks: int = 0, **fields: Any) -> Turn:
    """Write, digest and commit one turn."""
    store.begin()
    store.log.append(*kv(seed, count, store.identity.layout))
    if blocks:
        store.digests.append(digests(seed, blocks, store.identity.layout))
    return store.commit(new_turn(seed, count, **fields))


def contents(log: TokenLog) -> list[Tensor]:
    """Everything the log can read: per layer keys and values."""
    found = []
    for layer, (heads, dim) in enumerate(log.layout.layers):
        keys = torch.empty(heads, log.length, dim, dtype=log.layout.dtype)
        values = torch.empty_like(keys)
        log.read(layer, 0, log.length, keys, values)
        found += [keys, values]
    return found


def expected(*turns: tuple[int, int], layout: KVLayout = LAYOUT) -> list[Tensor]:
    """What ``contents`` must be after turns of (seed, count); a negative seed stands for a forgotten turn."""
    made = []
    for seed, count in turns:
        keys, values = kv(abs(seed), count, layout)
        made.append([t * 0 if seed < 0 else t for pair in zip(keys, values, strict=True) for t in pair])
    return [torch.cat(parts, dim=1) for parts in zip(*made, strict=True)]


def same(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> bool:
    """Whether two lists of tensors are equal to the bit."""
    return len(found) == len(wanted) and all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))

"""An agent below the level of text: ids in, logits out, through a real store and a real session."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.store.base import Home, NewTurn, Store


class SessionAgent:
    """Runs turns of plain ids; ``logits`` are those behind the last read id and behind each step."""

    def __init__(self, model: LanguageModel, home: Home, config: MemoryConfig, agent_id: str = "ada") -> None:
        self.model = model
        self.home = home
        self.config = config
        self.store: Store = (
            home.open(agent_id)
            if home.exists(agent_id)
            else home.create(
                agent_id,
                fingerprint=model.fingerprint,
                layout=model.layout_for(config.kv_dtype),
                model=model.name,
                facts={},
            )
        )

    def turn(self, read: Sequence[int], steps: Sequence[int] = ()) -> Tensor:
        """Read ids in chunks, then forward ``steps`` one by one; commit. Returns logits (1 + steps, V)."""
        self.store.begin()
        with self.model.turn(self.store.log, self.store.digests, self.config) as session:
            logits = [session.read(read)]
            logits += [session.step(token) for token in steps]
            session.memory.flush()
        head = self.store.head
        ids = [*read, *steps]
        self.store.commit(
            NewTurn(
                state_id=f"{head.id if head else 0}:{len(ids)}:{hash(tuple(ids))}",
                kind="append",
                messages=[],
                token_ids=ids,
                pending={"ids": [], "open_role": "user", "call_id": None},
                created_at="2026-01-01T00:00:00+00:00",
            )
        )
        return torch.stack(logits)

    def reopened(self) -> SessionAgent:
        """The same agent, closed and opened again."""
        name = self.store.identity.agent_id
        self.store.close()
        return SessionAgent(self.model, self.home, self.config, name)

    def forked(self, agent_id: str) -> SessionAgent:
        """A new agent with the same past, opened."""
        self.home.fork(self.store.identity.agent_id, agent_id)
        return SessionAgent(self.model, self.home, self.config, agent_id)

    def kv(self) -> list[Tensor]:
        """All committed raw keys and values, layer by layer."""
        return log_tensors(self.store)


def log_tensors(store: Store) -> list[Tensor]:
    """All committed raw keys and values of a store, layer by layer: (Hkv, n, D) each."""
    found, length = [], store.log.committed
    for layer, (heads, dim) in enumerate(store.log.layout.layers):
        for kind in range(2):
            out = torch.empty(heads, length, dim, dtype=store.log.layout.dtype)
            store.log.read(layer, 0, length, *((out, None) if kind == 0 else (None, out)))
            found.append(out)
    return found


def same_bits(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    """Whether the tensors are equal bit for bit."""
    return len(first) == len(second) and all(
        torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in zip(first, second, strict=True)
    )

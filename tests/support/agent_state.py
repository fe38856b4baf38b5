"""Everything that can be seen of an agent's state, so that two can be compared for being the same."""

from __future__ import annotations

from typing import Any

from agentmem.agent import AgentMemory
from support.two_lives import kv_digest


def state_of(memory: AgentMemory) -> dict[str, Any]:
    """Checkpoint, history, ids, what is pending, K/V bytes and digests of a memory."""
    store = memory._store
    return {
        "checkpoint": memory.checkpoint(),
        "tokens": memory.tokens_held,
        "history": memory.history(),
        "ids": store.token_ids(0, memory.tokens_held),
        "pending": None if store.head is None else store.head.pending,
        "kv": kv_digest(memory),
        "log": (store.log.length, store.log.committed, list(store.log.dead)),
        "digests": [
            [part.float().tolist() for part in store.digests.parts(layer)]
            for layer in range(len(store.log.layout.layers))
        ],
    }

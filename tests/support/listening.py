"""What a memory's next reply is made of: its logits, as a hash of their bytes."""

from __future__ import annotations

import hashlib
from typing import Any

from torch import Tensor

from agentmem.agent import AgentMemory


def logits_of(memory: AgentMemory, text: str, **options: Any) -> tuple[str, tuple[int, ...]]:
    """(hash of the logits of each token of the reply, its ids)."""
    digest = hashlib.sha256()

    def listen(_: Tensor, scores: Tensor) -> Tensor:
        digest.update(scores.cpu().numpy().tobytes())
        return scores

    message = [{"role": "user", "content": text}]
    reply = memory.generate(message, logits_processor=[listen], max_new_tokens=6, **options)
    return digest.hexdigest(), tuple(reply.token_ids)

"""One agent's life in three acts, played in one process or in a fresh one for each turn.

Run as ``python -m support.two_lives HOME TURN``: plays that turn for every agent of the home, and
prints what came of it as JSON, one record per agent.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from agentmem.agent import AgentMemory
from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.memory.modes import mode
from support.session_agent import log_tensors
from support.tiny_language_model import SMALL, language_model

TURNS = 3
_INFLLM = SMALL.changed(selector="infllm", positions="infllm", dense_tokens=24, reselect_every=0)
LIVES: dict[str, tuple[str, MemoryConfig]] = {
    "dense-float32": ("float32", SMALL.changed(dense_tokens=900)),
    "dense-bfloat16": ("bfloat16", SMALL.changed(dense_tokens=900)),
    "sparse-float32": ("float32", SMALL),
    "sparse-bfloat16": ("bfloat16", SMALL),
    "infllm-float32": ("float32", _INFLLM),
    "infllm-bfloat16": ("bfloat16", _INFLLM),
    "streaming-bfloat16": ("bfloat16", mode("streaming", SMALL)),
    "int8-bfloat16": ("bfloat16", SMALL.changed(kv_dtype="int8")),
    "int8-dense-float32": ("float32", SMALL.changed(kv_dtype="int8", dense_tokens=900)),
}
"""Agents by name: dtype and options."""
STORY = "The quick brown fox jumps over the lazy dog. How far is it? About 12 km, and back again. " * 4


def model_of(name: str) -> LanguageModel:
    """The model that an agent of :data:`LIVES` runs on."""
    return language_model(dtype=LIVES[name][0])


def play(memory: AgentMemory, model: LanguageModel, turn: int) -> dict[str, Any]:
    """Play one turn; what came of it, K/V and logits as hashes of their bytes."""
    logits = hashlib.sha256()

    def listen(_: Tensor, scores: Tensor) -> Tensor:
        logits.update(scores.cpu().numpy().tobytes())
        return scores

    held = memory.tokens_held
    options: dict[str, Any] = {
        "logits_processor": [listen],
        "max_new_tokens": 12,
        "at": "2026-01-02T03:04:05+00:00",
    }
    with counted(model.binding.model) as forwarded:
        if turn == 0:
            memory.chat("Hello there! My dog is called Biscuit.", **options)
            memory.observe(STORY, source="story", at=options["at"])
            reply = memory.chat(
                "What is my dog called?", temperature=0.9, top_k=40, top_p=0.95, seed=7, **options
            )
        elif turn == 1:
            memory.append([{"role": "user", "content": "naïve café 🙂"}], at=options["at"])
            question = [{"role": "user", "content": "And again?"}]
            reply = memory.generate(question, repetition_penalty=1.2, **options)
        else:
            reply = memory.chat("Please answer.", stop=("e",), **options)
    return {
        "states": [one.state_id for one in memory.history()],
        "ids": list(reply.token_ids),
        "text": reply.text,
        "logits": logits.hexdigest(),
        "kv": kv_digest(memory),
        "blocks": [(block.start, block.stop, block.share) for block in reply.receipt.blocks],
        "forwarded": sum(forwarded),
        "grown": memory.tokens_held - held,
        "dropped": sum(forwarded) - (memory.tokens_held - held),
        "reread": reply.receipt.tokens_reread,
    }


def kv_digest(memory: AgentMemory) -> str:
    """A hash over the bytes of all keys and values."""
    digest = hashlib.sha256()
    for tensor in log_tensors(memory._store):
        digest.update(tensor.contiguous().view(-1).float().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def counted(model: nn.Module) -> Iterator[list[int]]:
    """Lengths of the token rows that reach the model's own forward."""
    lengths: list[int] = []

    def note(_: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        lengths.append(int(ids.shape[1]))

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield lengths
    finally:
        hook.remove()


def main() -> None:
    """Play one turn of each agent, from what is on disk alone."""
    home, turn = Path(sys.argv[1]), int(sys.argv[2])
    records = {}
    for name in LIVES:
        with AgentMemory.resume(name, model=model_of(name), home=home, create=False) as memory:
            records[name] = {
                **play(memory, model_of(name), turn),
                "prefilled": memory.resumed.tokens_prefilled,
            }
    print(json.dumps(records))


if __name__ == "__main__":
    main()

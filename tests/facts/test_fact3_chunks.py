"""Fact 3: chunk size never changes token ids, positions in the log or block bounds."""

from __future__ import annotations

import pytest
import torch

from agentmem.agent import AgentMemory
from agentmem.config import MemoryConfig
from agentmem.store import InMemoryHome
from support.scripted import Scripted
from support.session_agent import log_tensors
from support.tiny_language_model import SMALL, language_model

STORY = "The quick brown fox jumps over the lazy dog. About 12 km, and back again. " * 3
CHUNKS = (1, 7, 16, 64)


def life(config: MemoryConfig) -> AgentMemory:
    """An agent that read a story, heard a thing and was asked."""
    memory = AgentMemory.resume("ada", model=language_model(), home=InMemoryHome(), config=config)
    memory.observe(STORY)
    memory.append([{"role": "user", "content": "My dog is called Biscuit."}])
    question = {"role": "user", "content": "What is my dog called?"}
    memory.generate(
        [question], logits_processor=[Scripted(memory.tokenizer, "Biscuit.")]
    )  # sampled ids may differ
    return memory


@pytest.mark.parametrize("dense", [True, False])
def test_ids_and_positions_are_those_of_any_chunk_size(dense: bool) -> None:
    """Every turn holds the same tokens at the same places, dense and sparse; all bounds lie on the grid."""
    lives = [life(SMALL.changed(chunk_tokens=chunk, dense_tokens=600 if dense else None)) for chunk in CHUNKS]
    stores = [memory._store for memory in lives]
    turns = [[(turn.start, turn.stop) for turn in store.turns()] for store in stores]
    ids = [store.token_ids(0, store.log.committed) for store in stores]

    assert all(other == turns[0] for other in turns)
    assert all(other == ids[0] for other in ids)
    for memory in lives:
        blocks = [(block.start, block.stop) for block in memory.explain().blocks]
        assert bool(blocks) != dense
        assert all((start - SMALL.sink_tokens) % 8 == 0 and stop - start == 8 for start, stop in blocks)


def test_dense_keys_and_values_differ_by_rounding_alone() -> None:
    """In fp32, within the dense limit, K/V agree to 1e-4 across chunk sizes."""
    lives = [life(SMALL.changed(chunk_tokens=chunk, dense_tokens=600)) for chunk in CHUNKS]
    first, *others = [log_tensors(memory._store) for memory in lives]

    for other in others:
        differences = [float((a - b).abs().max()) for a, b in zip(first, other, strict=True)]
        assert max(differences) <= 1e-4


def test_layer_zero_is_the_same_in_sparse_range_too() -> None:
    """The first layer's K/V come from the embeddings alone, so what was selected cannot reach them."""
    lives = [life(SMALL.changed(chunk_tokens=chunk)) for chunk in CHUNKS]
    first, *others = [log_tensors(memory._store)[:2] for memory in lives]

    for other in others:
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(first, other, strict=True))

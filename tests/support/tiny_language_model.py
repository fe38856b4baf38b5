"""A tiny random model with a tokenizer and a chat template, ready to serve agents. Nothing is loaded."""

from __future__ import annotations

from functools import cache

from transformers import PreTrainedModel

from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel
from support.templates import tokenizer_for
from support.tiny_models import build, in_bfloat16

SMALL = MemoryConfig(
    sink_tokens=8, window_tokens=24, recall_tokens=32, block_tokens=8, chunk_tokens=16, reselect_every=8
)
"""Options small enough that a few short turns leave the window."""
TRAINED = 1024


@cache
def language_model(
    family: str = "llama", template: str = "chatml", dtype: str = "float32", seed: int = 0, layers: int = 2
) -> LanguageModel:
    """A bound model, shared by all tests that ask for the same one; "trained" on 1,024 tokens."""
    model = plain_model(family, template, dtype, seed, layers)
    return LanguageModel.wrap(model, tokenizer_for(template), name=f"tiny-{family}")


def plain_model(
    family: str = "llama",
    template: str = "chatml",
    dtype: str = "float32",
    seed: int = 0,
    layers: int = 2,
    trained: int = TRAINED,
) -> PreTrainedModel:
    """The same weights, unbound: what transformers itself makes of them."""
    tokenizer = tokenizer_for(template)
    options = {"num_hidden_layers": layers} if family == "llama" else {}
    model = build(
        family,
        seed=seed,
        vocab_size=len(tokenizer),
        max_position_embeddings=trained,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        **options,
    )
    return in_bfloat16(model) if dtype == "bfloat16" else model

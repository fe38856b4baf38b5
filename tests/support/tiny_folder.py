"""A chat model as users have it: a folder with weights, a tokenizer and a chat template. Random, tiny."""

from __future__ import annotations

from pathlib import Path

from support.templates import tokenizer_for
from support.tiny_models import from_options


def write_chat_model(folder: Path, template: str = "chatml", seed: int = 0) -> Path:
    """Write a two-layer Llama that knows the template's tokens; it was "trained" on 8,192 tokens."""
    tokenizer = tokenizer_for(template)
    model = from_options(
        "Llama",
        seed=seed,
        vocab_size=len(tokenizer),
        num_hidden_layers=2,
        max_position_embeddings=8192,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder

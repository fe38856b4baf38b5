"""What a GGUF file says about its tokenizer: the ids and flags that conversion must not lose.

Reads the header through the gguf package. Knows nothing of transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFReader

from agentmem.errors import UnsupportedModelError

CONTROL = 3
"""The GGUF token type of special tokens."""
END_OF_TURN_TEXTS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>")
"""Control tokens that end a reply whatever the header calls them (as llama.cpp treats them)."""


@dataclass(frozen=True)
class GgufFacts:
    """Tokenizer metadata of one file. Ids are None where the file is silent."""

    architecture: str
    pre_tokenizer: str | None
    bos: str | None
    eos: str | None
    pad: str | None
    unk: str | None
    end_ids: tuple[int, ...]
    """Ids that end a reply: the EOS first, then end-of-turn tokens, without repeats."""
    bos_id: int | None
    pad_id: int | None
    add_bos: bool | None
    chat_template: str | None
    control_tokens: tuple[str, ...]


def read_facts(path: Path) -> GgufFacts:
    """Read the header. Raises UnsupportedModelError when the file is not a readable GGUF."""
    try:
        fields = GGUFReader(path).fields
        values = {name: field.contents() for name, field in fields.items() if _wanted(name)}
    except (ValueError, OSError, IndexError, KeyError) as error:
        raise UnsupportedModelError(f"{path} cannot be read as a GGUF file: {error}") from error
    if "tokenizer.ggml.tokens" not in values or "general.architecture" not in values:
        raise UnsupportedModelError(f"{path} holds no tokenizer or names no architecture; it cannot be used.")
    tokens: list[str] = values["tokenizer.ggml.tokens"]
    types: list[int] = values.get("tokenizer.ggml.token_type", [])
    control = tuple(token for token, kind in zip(tokens, types, strict=False) if kind == CONTROL)

    def token(key: str) -> str | None:
        token_id = values.get(f"tokenizer.ggml.{key}")
        return None if token_id is None else tokens[token_id]

    return GgufFacts(
        architecture=values["general.architecture"],
        pre_tokenizer=values.get("tokenizer.ggml.pre"),
        bos=token("bos_token_id"),
        eos=token("eos_token_id"),
        pad=token("padding_token_id"),
        unk=token("unknown_token_id"),
        end_ids=_end_ids(values, tokens, control),
        bos_id=values.get("tokenizer.ggml.bos_token_id"),
        pad_id=values.get("tokenizer.ggml.padding_token_id"),
        add_bos=values.get("tokenizer.ggml.add_bos_token"),
        chat_template=values.get("tokenizer.chat_template"),
        control_tokens=control,
    )


def _wanted(name: str) -> bool:
    """Skip the long arrays nothing here needs."""
    return name.startswith(("general.architecture", "tokenizer.")) and name not in {
        "tokenizer.ggml.merges",
        "tokenizer.ggml.scores",
    }


def _end_ids(values: dict[str, Any], tokens: list[str], control: tuple[str, ...]) -> tuple[int, ...]:
    named = [values.get(f"tokenizer.ggml.{key}") for key in ("eos_token_id", "eot_token_id", "eom_token_id")]
    known = [tokens.index(text) for text in END_OF_TURN_TEXTS if text in control]
    return tuple(dict.fromkeys([*(n for n in named if n is not None), *known]))

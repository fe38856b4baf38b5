"""What a GGUF file's header says, as far as conversion must not lose it.

Special tokens, the BOS rule, stop ids and RoPE scaling. Reads through the gguf package; knows nothing
of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFReader

from agentmem.errors import UnsupportedModelError

CONTROL = 3
"""The GGUF token type of special tokens."""
REPLY_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>")
"""Control tokens that end a reply whatever the header calls them, as llama.cpp treats them."""
UNUSED = frozenset({"tokenizer.ggml.merges", "tokenizer.ggml.scores"})
"""Long arrays nothing here needs."""


@dataclass(frozen=True)
class SpecialToken:
    """A token with a role."""

    text: str
    id: int


@dataclass(frozen=True)
class RopeFacts:
    """How the file scales its rotary embedding. ``factors`` divide the inverse frequencies, per pair."""

    kind: str
    """"none", "linear", "yarn", ..., as llama.cpp calls it."""
    settings: Mapping[str, Any]
    factors: tuple[float, ...] | None
    long_factors: bool
    """True when the file holds separate factors for long contexts (Phi-3)."""


@dataclass(frozen=True)
class GgufFacts:
    """One file's header. What the file is silent about is None."""

    architecture: str
    pre_tokenizer: str | None
    bos: SpecialToken | None
    eos: SpecialToken | None
    pad: SpecialToken | None
    unk: SpecialToken | None
    end_ids: tuple[int, ...]
    """Ids that end a reply: the EOS first, then end-of-turn tokens, without repeats."""
    add_bos: bool | None
    chat_template: str | None
    control_tokens: tuple[str, ...]
    rope: RopeFacts


def read_facts(path: Path) -> GgufFacts:
    """Read the header. Raises UnsupportedModelError when the file is no usable GGUF."""
    try:
        return _facts(GGUFReader(path), path)
    except (ValueError, OSError, IndexError, KeyError) as error:
        raise UnsupportedModelError(f"{path} cannot be read as a GGUF file: {error}") from error


def _facts(reader: GGUFReader, path: Path) -> GgufFacts:
    values = {name: field.contents() for name, field in reader.fields.items() if name not in UNUSED}
    factors = {t.name: tuple(t.data.tolist()) for t in reader.tensors if t.name.startswith("rope_f")}
    tokens: list[str] = values.get("tokenizer.ggml.tokens", [])
    if not tokens or "general.architecture" not in values:
        raise UnsupportedModelError(f"{path} holds no tokenizer or names no architecture; it cannot be used.")
    types: list[int] = values.get("tokenizer.ggml.token_type", [])
    control = tuple(token for token, kind in zip(tokens, types, strict=False) if kind == CONTROL)

    def token(key: str) -> SpecialToken | None:
        token_id = values.get(f"tokenizer.ggml.{key}_token_id")
        return None if token_id is None else SpecialToken(tokens[token_id], token_id)

    return GgufFacts(
        architecture=values["general.architecture"],
        pre_tokenizer=values.get("tokenizer.ggml.pre"),
        bos=token("bos"),
        eos=token("eos"),
        pad=token("padding"),
        unk=token("unknown"),
        end_ids=_end_ids([token("eos"), token("eot"), token("eom")], tokens, control),
        add_bos=values.get("tokenizer.ggml.add_bos_token"),
        chat_template=values.get("tokenizer.chat_template"),
        control_tokens=control,
        rope=_rope(values, factors),
    )


def _end_ids(
    named: list[SpecialToken | None], tokens: list[str], control: tuple[str, ...]
) -> tuple[int, ...]:
    known = [tokens.index(text) for text in REPLY_ENDS if text in control]
    return tuple(dict.fromkeys([*(token.id for token in named if token is not None), *known]))


def _rope(values: Mapping[str, Any], factors: Mapping[str, tuple[float, ...]]) -> RopeFacts:
    prefix = f"{values['general.architecture']}.rope.scaling."
    settings = {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
    kind = str(settings.pop("type", "none"))
    single = factors.get("rope_freqs.weight")
    if single is not None and all(factor == 1.0 for factor in single):
        single = None
    return RopeFacts(kind, settings, single, long_factors="rope_factors_long.weight" in factors)

"""The RoPE scaling of a GGUF file, as transformers' configuration spells it.

transformers drops it on reading; the model would then be wrong everywhere, quietly. What cannot be
spelled exactly is refused. Knows nothing of files.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from agentmem.engine.gguf_facts import RopeFacts
from agentmem.errors import UnsupportedModelError

LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
LLAMA3_FACTORS = (8.0, 32.0)
"""Llama 3.1 and 3.2: a GGUF holds only the resulting factors, so the settings are found again."""


def rope_parameters(config: PretrainedConfig, facts: RopeFacts) -> dict[str, Any] | None:
    """``rope_parameters`` for the configuration; None where transformers already has it right.

    Raises:
        UnsupportedModelError: the file scales its RoPE in a way that cannot be carried over exactly.
    """
    scaled = facts.kind != "none" or facts.factors is not None or facts.long_factors
    read: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    if not scaled or read.get("rope_type", "default") != "default":
        return None
    found = None
    if "rope_theta" in read and not facts.long_factors:
        found = _llama3(config, read, facts) if facts.factors is not None else _by_name(read, facts)
    if found is None:
        kind = facts.kind if facts.kind != "none" else "its own factors"
        raise UnsupportedModelError(
            f"this GGUF file ({config.model_type}) scales its positions by {kind}, which transformers drops "
            "when it reads GGUF files. Use a safetensors folder of this model."
        )
    return found


def _by_name(read: dict[str, Any], facts: RopeFacts) -> dict[str, Any] | None:
    factor, original = facts.settings.get("factor"), facts.settings.get("original_context_length")
    if facts.kind == "linear" and factor is not None:
        return {**read, "rope_type": "linear", "factor": float(factor)}
    exact = set(facts.settings) <= {"factor", "original_context_length", "finetuned"}
    if facts.kind == "yarn" and exact and factor is not None and original is not None:
        scaling = {"factor": float(factor), "original_max_position_embeddings": int(original)}
        return {**read, "rope_type": "yarn", **scaling}
    return None


def _llama3(config: PretrainedConfig, read: dict[str, Any], facts: RopeFacts) -> dict[str, Any] | None:
    """The llama3 settings that give exactly the file's factors."""
    wanted = torch.tensor(facts.factors, dtype=torch.float32)
    pairs = torch.arange(0, 2 * len(wanted), 2, dtype=torch.float32)
    plain = 1.0 / (read["rope_theta"] ** (pairs / (2 * len(wanted))))
    for factor in LLAMA3_FACTORS:
        trial = type(config).from_dict(config.to_dict())
        trial.rope_parameters = {**read, "rope_type": "llama3", "factor": factor, **LLAMA3}
        scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](trial, torch.device("cpu"))
        if scaled.shape == plain.shape and torch.allclose(plain / scaled, wanted, rtol=1e-4, atol=0.0):
            return dict(trial.rope_parameters)
    return None

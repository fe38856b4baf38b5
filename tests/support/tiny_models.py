"""Tiny random models of every supported family, and of those that must be refused.

Four layers, width 64, four query and two KV heads, 97 tokens. Weights are scaled so that attention is
sharp and norm weights differ from 1: with transformers' own initialisation attention is nearly uniform
and a wrong rotation would hardly show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

VOCAB = 97
WINDOW = 12

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
_MIXED = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
_YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 64}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0}
_DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
_EXPERTS = {"num_experts_per_tok": 2}


def _longrope() -> dict[str, Any]:
    """Phi-3's longrope for head size 16; where the long factors begin is a field of the config itself."""
    return {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "short_factor": [1.0 + 0.05 * i for i in range(8)],
        "long_factor": [2.0 + 0.7 * i for i in range(8)],
    }


def _entry(name: str, **options: Any) -> tuple[str, dict[str, Any]]:
    return name, options


_SPECS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "llama": _entry("Llama"),
    "llama-linear": _entry("Llama", rope_parameters=_LINEAR),
    "llama-llama3": _entry("Llama", rope_parameters=_LLAMA3),
    "llama-yarn": _entry("Llama", rope_parameters=_YARN),
    "llama-dynamic": _entry("Llama", rope_parameters=_DYNAMIC),
    "mistral": _entry("Mistral", sliding_window=None),
    "mixtral": _entry("Mixtral", num_local_experts=4, **_EXPERTS),
    "qwen2": _entry("Qwen2"),
    "qwen2-mixed": _entry("Qwen2", use_sliding_window=True, sliding_window=WINDOW, layer_types=_MIXED),
    "qwen3": _entry("Qwen3", head_dim=16),
    "qwen3-yarn": _entry("Qwen3", head_dim=16, rope_parameters=_YARN),
    "qwen3-moe": _entry("Qwen3Moe", head_dim=16, num_experts=4, moe_intermediate_size=48, **_EXPERTS),
    "phi3": _entry(
        "Phi3", rope_parameters={"rope_theta": 1e4, "rope_type": "default", "partial_rotary_factor": 0.75}
    ),
    "phi3-longrope": _entry("Phi3", rope_parameters=_longrope(), original_max_position_embeddings=128),
    "olmo2": _entry("Olmo2"),
    "granite": _entry("Granite", attention_multiplier=0.1, residual_multiplier=0.7, logits_scaling=2.0),
    "smollm3": _entry("SmolLM3", no_rope_layers=[1, 1, 1, 0]),
    "gemma2": _entry(
        "Gemma2",
        head_dim=16,
        sliding_window=WINDOW,
        layer_types=_MIXED,
        query_pre_attn_scalar=24,
        attn_logit_softcapping=5.0,
    ),
    "gemma3": _entry(
        "Gemma3", head_dim=16, sliding_window=WINDOW, layer_types=_MIXED, query_pre_attn_scalar=24
    ),
    "glm4": _entry("Glm4", head_dim=16),
    "cohere2": _entry("Cohere2", head_dim=16, sliding_window=WINDOW, layer_types=_MIXED, logit_scale=1.0),
    "gpt-oss": _entry(
        "GptOss",
        head_dim=16,
        sliding_window=WINDOW,
        layer_types=_MIXED,
        num_local_experts=4,
        rope_parameters={**_YARN, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False},
        **_EXPERTS,
    ),
}
_CONFIG_NAMES = {name: f"{name}TextConfig" for name in ("Gemma3", "Gemma4", "Llama4")}

FAMILIES: tuple[str, ...] = tuple(_SPECS)
"""Every supported family; ``build(name)`` makes a model of it."""

MIXED_WINDOWS: tuple[str, ...] = ("qwen2-mixed", "gemma2", "gemma3", "cohere2", "gpt-oss")
"""Families whose even layers see only the newest WINDOW tokens."""


def build(name: str, seed: int = 0, **options: Any) -> PreTrainedModel:
    """A tiny random model of a family, fp32, eval mode; the same for the same seed."""
    base, own = _SPECS[name]
    return from_options(base, seed=seed, **{**own, **options})


def from_options(base: str, seed: int = 0, **options: Any) -> PreTrainedModel:
    """A tiny random causal model of the class ``base``ForCausalLM."""
    config_class = getattr(transformers, _CONFIG_NAMES.get(base, f"{base}Config"))
    config = config_class(**{**_COMMON, **options})
    return randomised(getattr(transformers, f"{base}ForCausalLM"), config, seed)


def randomised(model_class: Callable[[Any], PreTrainedModel], config: Any, seed: int = 0) -> PreTrainedModel:
    """An instance with sharp random weights, in eval mode."""
    model: PreTrainedModel = model_class(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1 and "norm" in parameter_name:
                parameter.copy_(1.0 + 0.3 * noise)
            elif parameter.ndim == 1:
                parameter.copy_(0.5 * noise)
            elif "embed" in parameter_name:
                parameter.copy_(noise)
            else:
                parameter.copy_(noise * (1.6 / parameter.shape[-1] ** 0.5))
    return model


def in_bfloat16(model: PreTrainedModel) -> PreTrainedModel:
    """The model cast as ``from_pretrained(dtype=bfloat16)`` leaves it: rotary frequencies stay fp32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    model.config.dtype = torch.bfloat16
    return model


def stock_logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """One plain forward pass of an unbound model: logits (1, T, V)."""
    with torch.no_grad():
        logits: torch.Tensor = model(ids, use_cache=False).logits
    return logits


def prompt(length: int, seed: int = 1) -> torch.Tensor:
    """Token ids (1, length) without special tokens."""
    return torch.randint(3, VOCAB, (1, length), generator=torch.Generator().manual_seed(seed))

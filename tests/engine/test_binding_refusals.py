"""What cannot be bound exactly is refused with its reason, and the instance is left as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from agentmem.engine.binding import bind
from agentmem.errors import ConfigError, UnsupportedModelError
from support.oracle import run
from support.tiny_models import VOCAB, build, from_options, prompt, randomised, stock_logits

IDS = prompt(40)


def _ministral3(beta: float) -> PreTrainedModel:
    rope = {
        "rope_type": "yarn",
        "rope_theta": 1e4,
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "llama_4_scaling_beta": beta,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    }
    return from_options("Ministral3", head_dim=16, sliding_window=None, rope_parameters=rope)


def _deepseek() -> PreTrainedModel:
    sizes = {
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 16,
    }
    experts = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2}
    return from_options(
        "DeepseekV3",
        **sizes,
        **experts,
        moe_intermediate_size=32,
        first_k_dense_replace=4,
        num_key_value_heads=4,
    )


def _qwen3_next() -> PreTrainedModel:
    linear = {"linear_num_value_heads": 4, "linear_num_key_heads": 2}
    sizes = {"linear_key_head_dim": 16, "linear_value_head_dim": 16, "moe_intermediate_size": 32}
    return from_options(
        "Qwen3Next",
        head_dim=16,
        num_experts=4,
        num_experts_per_tok=2,
        shared_expert_intermediate_size=32,
        **linear,
        **sizes,
    )


def _gpt(kind: str, model_class: type[PreTrainedModel], **options: Any) -> PreTrainedModel:
    sizes = {"vocab_size": VOCAB, "n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 256}
    return randomised(model_class, getattr(transformers, f"{kind}Config")(**sizes, **options))


def _gemma4_sharing_keys() -> PreTrainedModel:
    return from_options(
        "Gemma4",
        head_dim=16,
        global_head_dim=32,
        num_kv_shared_layers=2,
        sliding_window=12,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=VOCAB,
        layer_types=["sliding_attention", "full_attention"] * 2,
    )


REFUSED: dict[str, tuple[Callable[[], PreTrainedModel], str]] = {
    "hunyuan-dense": (lambda: from_options("HunYuanDenseV1", head_dim=16), "changed after the rotation"),
    "ministral3": (lambda: _ministral3(0.1), "change its queries in more ways than by rotation"),
    "deepseek-v3": (_deepseek, "not the raw ones rotated"),
    "llama4": (
        lambda: from_options("Llama4", intermediate_size_mlp=96, head_dim=16, num_local_experts=2),
        "does not return",
    ),
    "lfm2": (
        lambda: from_options("Lfm2", layer_types=["conv", "full_attention"] * 2, block_multiple_of=16),
        r"layers \[0, 2\] do not",
    ),
    "qwen3-next": (_qwen3_next, "outside keys and values"),
    "stablelm": (lambda: from_options("StableLm"), "do not reach its attention"),
    "nemotron": (lambda: from_options("Nemotron"), "do not reach its attention"),
    "gpt2": (lambda: _gpt("GPT2", transformers.GPT2LMHeadModel), "no rotary module"),
    "gptj": (lambda: _gpt("GPTJ", transformers.GPTJForCausalLM, rotary_dim=8), "no rotary module"),
    "gemma4-shared-kv": (_gemma4_sharing_keys, "share or drop"),
    "mistral-all-windows": (lambda: build("mistral", sliding_window=12), "no full-attention layer"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_reason_and_left_alone(name: str) -> None:
    """The error names the class and the reason; afterwards the stock logits are bit-identical."""
    make, reason = REFUSED[name]
    model = make()
    stock = stock_logits(model, IDS)

    with pytest.raises(UnsupportedModelError, match=reason) as caught:
        bind(model)

    assert type(model).__name__ in str(caught.value)
    assert torch.equal(stock_logits(model, IDS), stock)


def test_the_layer_is_named() -> None:
    """A refusal says which layer it is about."""
    model = from_options("HunYuanDenseV1", head_dim=16)

    with pytest.raises(UnsupportedModelError, match=r"layer 0 \(model\.layers\.0\.self_attn\)"):
        bind(model)


def test_without_the_cause_the_same_architecture_is_exact() -> None:
    """Ministral 3 whose query scale is switched off binds exactly: its refusal hits the cause."""
    model = _ministral3(0.0)
    stock = stock_logits(model, IDS)

    assert torch.allclose(run(bind(model), IDS, [11, 20]), stock, atol=1e-4, rtol=0)


def test_positions_that_reach_the_values_are_refused() -> None:
    """A model that also adds learned positions to its hidden states cannot move its keys."""
    model = build("llama")
    shift = torch.randn(256, 64, generator=torch.Generator().manual_seed(0))
    rotate = model.model.rotary_emb.forward

    def rotate_and_shift(x: torch.Tensor, position_ids: torch.Tensor) -> Any:
        x += shift[position_ids]
        return rotate(x, position_ids)

    model.model.rotary_emb.forward = rotate_and_shift

    with pytest.raises(UnsupportedModelError, match="values depend on positions"):
        bind(model)


def test_training_mode_is_refused() -> None:
    """A model with dropout switched on is refused, with the remedy."""
    with pytest.raises(UnsupportedModelError, match=r"model\.eval\(\)"):
        bind(build("llama").train())


def test_a_plain_module_is_refused() -> None:
    """Anything but a transformers model is refused by its class name."""
    with pytest.raises(UnsupportedModelError, match="Linear"):
        bind(nn.Linear(2, 2))  # type: ignore[arg-type]


def test_a_model_without_a_trained_length_is_refused() -> None:
    """Without a useful max_position_embeddings nothing says how far positions may go."""
    model = build("llama")
    model.config.max_position_embeddings = 0

    with pytest.raises(UnsupportedModelError, match="max_position_embeddings"):
        bind(model)


@pytest.mark.parametrize("positions", [0, 257])
def test_positions_beyond_training_are_refused(positions: int) -> None:
    """Rotary tables never exceed the trained length."""
    model = build("llama")
    stock = stock_logits(model, IDS)

    with pytest.raises(ConfigError, match="256"):
        bind(model, max_positions=positions)

    assert torch.equal(stock_logits(model, IDS), stock)

"""Lean layers: only where they are the same, and then bit for bit, through chunks, steps and several rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from agentmem.engine.lean import LeanLayer, make_lean
from agentmem.engine.model import LanguageModel
from agentmem.store import InMemoryHome
from support.session_agent import SessionAgent
from support.templates import tokenizer_for
from support.tiny_folder import write_chat_model
from support.tiny_language_model import SMALL, plain_model
from support.tiny_models import FAMILIES


def leave(module: nn.Module) -> None:
    """Hold weights as they are."""


def logits_of(model: LanguageModel) -> torch.Tensor:
    """Of an agent that reads past its window and decodes, twice."""
    agent = SessionAgent(model, InMemoryHome(), SMALL)
    return torch.cat([agent.turn(range(5, 90), steps=[7, 8, 9]), agent.turn([9, 10, 11], steps=[3])])


def bound(family: str, dtype: str) -> LanguageModel:
    """A model of its own."""
    return LanguageModel.wrap(plain_model(family, dtype=dtype), tokenizer_for("chatml"))


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral", "llama-yarn", "qwen2-mixed"])
def test_every_layer_of_common_families_is_replaced(family: str) -> None:
    """And what an agent computes on them is the same bit for bit."""
    model = bound(family, "bfloat16")
    wanted = logits_of(model)
    count = len(model.binding.layers)

    assert make_lean(model.binding.model, leave) == count
    assert torch.equal(logits_of(model), wanted)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_changes(family: str) -> None:
    """Whatever layers a family has: replaced or not, the logits keep their bits."""
    model = bound(family, "float32")
    wanted = logits_of(model)
    make_lean(model.binding.model, leave)

    assert torch.equal(logits_of(model), wanted)


def test_a_layer_that_only_looks_the_same_is_left() -> None:
    """The right parts, put together otherwise: Granite scales its residual sums. Hooks are left in peace too."""
    granite, hooked = bound("granite", "float32"), bound("llama", "float32")
    layers = hooked.binding.model.model.layers
    layers[0].mlp.up_proj.register_forward_hook(lambda *_: None)

    assert make_lean(granite.binding.model, leave) == 0
    assert make_lean(hooked.binding.model, leave) == len(layers) - 1
    assert not isinstance(layers[0], LeanLayer)


def test_each_layer_is_held_before_the_next_is_made() -> None:
    """So that no more than one layer's weights are there twice; the old ones are let go of."""
    model = bound("llama", "float32").binding.model
    held: list[nn.Module] = []
    make_lean(model, held.append)

    assert held == list(model.model.layers)
    assert all(not dict(layer._known_as[0].named_parameters()) for layer in model.model.layers)


def test_a_loaded_model_has_lean_layers_and_its_memories_are_the_same(tmp_path: Path) -> None:
    """A model loaded by name computes what the plain one does, float32 included."""
    folder = write_chat_model(tmp_path / "model")
    loaded = LanguageModel.load(folder, device="cpu", dtype="float32")
    plain: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    wrapped = LanguageModel.wrap(plain, loaded.tokenizer)

    assert any(isinstance(module, LeanLayer) for module in loaded.binding.model.modules())
    assert torch.equal(logits_of(loaded), logits_of(wrapped))
    assert loaded.fingerprint["config"] == wrapped.fingerprint["config"]

"""Packed linear layers: the ordinary layer's own bits, saved like any other, and left alone where they cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from agentmem.engine import packed
from agentmem.engine.linears import replace_linears
from agentmem.engine.model import LanguageModel
from agentmem.engine.packed import PackedLinear, pack_linears
from agentmem.store import InMemoryHome
from support.session_agent import SessionAgent
from support.tiny_folder import write_chat_model
from support.tiny_language_model import SMALL, plain_model

can_pack = pytest.mark.skipif(not packed._usable(), reason="this CPU or torch has no packed bfloat16 kernels")


@pytest.fixture(autouse=True)
def no_gradients() -> object:
    """As the engine runs."""
    with torch.no_grad():
        yield


def linear_of(rows: int, columns: int, *, bias: bool = True) -> nn.Linear:
    """A random bfloat16 layer."""
    torch.manual_seed(rows)
    return nn.Linear(columns, rows, bias=bias, dtype=torch.bfloat16)


@can_pack
@pytest.mark.parametrize("tokens", [1, 2, 7, 16, 64, 300])
@pytest.mark.parametrize(("rows", "columns", "bias"), [(128, 896, True), (896, 4864, False), (97, 64, True)])
def test_packed_is_the_same_bit_for_bit(rows: int, columns: int, tokens: int, bias: bool) -> None:
    """For one token, which has the bits it has beside another one, as for a chunk; with and without a bias."""
    layer = linear_of(rows, columns, bias=bias)
    x = torch.randn(1, tokens, columns, dtype=torch.bfloat16)
    wanted = layer(x) if tokens > 1 else layer(torch.cat([x, x], dim=1))[:, :1]

    assert torch.equal(PackedLinear(layer)(x), wanted)


@can_pack
def test_the_weight_comes_out_as_it_went_in() -> None:
    """Bit for bit; and what the layer says of itself is true."""
    layer = linear_of(80, 96)
    made = PackedLinear(layer)

    assert torch.equal(made.weight, layer.weight)
    assert (made.in_features, made.out_features, made.bias is layer.bias) == (96, 80, True)


@can_pack
def test_a_packed_model_is_saved_like_any_other(tmp_path: Path) -> None:
    """Saved and loaded again, it gives the same logits."""
    model = plain_model(dtype="bfloat16")
    ids = torch.tensor([[5, 6, 7, 8]])
    before = model(ids).logits
    assert pack_linears(model) > 0
    assert torch.equal(model(ids).logits, before)

    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()

    assert torch.equal(again(ids).logits, before)


def test_what_cannot_be_packed_is_left() -> None:
    """Other dtypes, subclasses, and layers somebody hooked on to."""

    class Own(nn.Linear):
        pass

    hooked = linear_of(16, 16)
    hooked.register_forward_hook(lambda *_: None)
    model = nn.Sequential(nn.Linear(16, 16), Own(16, 16, dtype=torch.bfloat16), hooked)
    before = list(model)

    assert pack_linears(model) == 0
    assert list(model) == before


def test_replacing_reaches_every_plain_layer() -> None:
    """Nested ones too, and only those the maker wants."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 2), nn.ReLU()))

    assert replace_linears(model, lambda layer: nn.Identity() if layer.out_features == 2 else None) == 1
    assert isinstance(model[1][0], nn.Identity)
    assert isinstance(model[0], nn.Linear)


@can_pack
def test_a_loaded_model_is_packed_and_its_memories_are_the_same(tmp_path: Path) -> None:
    """An agent on a packed model computes what it does on the plain one: logits and fingerprint but for names."""
    folder = write_chat_model(tmp_path / "model")
    loaded = LanguageModel.load(folder, device="cpu", dtype="bfloat16")
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    wrapped = LanguageModel.wrap(plain, loaded.tokenizer)
    kinds = {type(module) for module in loaded.binding.model.modules()}
    assert PackedLinear in kinds
    assert nn.Linear not in kinds

    logits = []
    for model in (loaded, wrapped):
        agent = SessionAgent(model, InMemoryHome(), SMALL)
        logits.append([agent.turn(range(5, 90), steps=[7, 8, 9]), agent.turn([9, 10])])

    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*logits, strict=True))

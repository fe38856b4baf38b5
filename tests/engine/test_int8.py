"""Weights of one byte: how far off they are, what they change, and where they are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from agentmem import AgentMemory
from agentmem.engine.int8 import FEW_TOKENS, WIDENED, Int8Linear, round_linears
from agentmem.engine.loading import resolve
from agentmem.engine.model import LanguageModel
from agentmem.errors import FingerprintMismatchError, ModelNotFoundError, UnsupportedModelError
from agentmem.store import InMemoryHome
from support.session_agent import SessionAgent
from support.tiny_folder import write_chat_model
from support.tiny_language_model import SMALL, plain_model


@pytest.fixture(autouse=True)
def no_gradients() -> object:
    """As the engine runs."""
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny chat model."""
    return write_chat_model(tmp_path_factory.mktemp("model"))


def linear_of(rows: int, columns: int, dtype: torch.dtype, *, bias: bool = True) -> nn.Linear:
    """A random layer."""
    torch.manual_seed(rows)
    return nn.Linear(columns, rows, bias=bias, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, FEW_TOKENS, FEW_TOKENS + 1, 100])
@pytest.mark.parametrize(("rows", "columns", "bias"), [(128, 896, True), (97, 64, False)])
def test_the_product_is_that_of_the_rounded_weight(
    rows: int, columns: int, tokens: int, dtype: torch.dtype, bias: bool
) -> None:
    """For few tokens and for many, within the rounding of the dtype."""
    made = Int8Linear(linear_of(rows, columns, dtype, bias=bias))
    x = torch.randn(1, tokens, columns, dtype=dtype)

    wanted = x.double() @ (made.steps.double() * made.scales.double()[:, None]).t()
    wanted += 0 if made.bias is None else made.bias.double()

    near = 1e-5 if dtype == torch.float32 else 2**-7
    assert made(x).dtype == dtype
    assert (made(x).double() - wanted).abs().max() <= near * wanted.abs().max()


def test_no_weight_is_far_off() -> None:
    """Half a step at most: 1/254 of the row's largest weight; an empty row stays empty."""
    layer = linear_of(50, 70, torch.float32)
    layer.weight[7] = 0
    error = (Int8Linear(layer).weight - layer.weight).abs()

    assert (error <= layer.weight.abs().amax(1, keepdim=True) / 254 * 1.001).all()
    assert not error[7].any()


def test_a_layer_larger_than_the_scratch_memory() -> None:
    """Rows are widened block by block, the last one shorter."""
    columns = WIDENED // 8
    layer = linear_of(19, columns, torch.float32)
    x = torch.randn(FEW_TOKENS + 1, columns)
    made = Int8Linear(layer)

    assert torch.allclose(made(x), x @ made.weight.t() + layer.bias, atol=1e-2)


def test_logits_stay_near_those_of_full_weights() -> None:
    """A tiny model with sharp attention: within a twentieth of the logits' own spread, in chunks and steps."""
    model, rounded = plain_model(), plain_model()
    assert round_linears(rounded) == 15
    ids = torch.randint(3, 90, (1, 60))
    full, near = model(ids).logits, rounded(ids).logits

    assert (near - full).square().mean().sqrt() < 0.05 * full.std()
    assert not torch.equal(near, full)


def test_the_name_says_it_everywhere(folder: Path) -> None:
    """A built-in, a folder, a hub id: the same files, another form. A folder so named stays a folder."""
    built_in, hub, local = (resolve(n) for n in ("smollm2-135m:int8", "org/name:int8", f"{folder}:int8"))

    assert {found.form for found in (built_in, hub, local)} == {"int8"}
    assert (built_in.source_name, hub.source_name, local.path) == ("smollm2-135m", "org/name", folder)
    assert local.name == f"{folder}:int8"
    with pytest.raises(ModelNotFoundError, match=":int8"):
        resolve("smollm2-135m:int3")
    (folder / "odd:int8").mkdir(exist_ok=True)
    assert resolve(folder / "odd:int8").form == "packed"


def test_a_memory_of_full_weights_does_not_fit_rounded_ones(folder: Path, tmp_path: Path) -> None:
    """Two models: their fingerprints differ in the weights. What was made with int8 is found again as int8."""
    full, rounded = LanguageModel.load(folder), LanguageModel.load(f"{folder}:int8")
    differing = {f for f in full.fingerprint if full.fingerprint[f] != rounded.fingerprint[f]}
    assert differing == {"weights"}

    AgentMemory.resume("ada", model=f"{folder}:int8", home=tmp_path, config=SMALL).close()
    with pytest.raises(FingerprintMismatchError, match="int8"):
        AgentMemory.resume("ada", model=folder, home=tmp_path)
    with AgentMemory.resume("ada", home=tmp_path) as again:
        assert again._model.get() is rounded


def test_a_resumed_memory_goes_on_bit_for_bit(folder: Path) -> None:
    """With int8 weights as with full ones: closed and opened between turns, or not."""
    model = LanguageModel.load(f"{folder}:int8", device="cpu", dtype="bfloat16")
    lives = []
    for reopen in (False, True):
        agent = SessionAgent(model, InMemoryHome(), SMALL)
        first = agent.turn(range(5, 90), steps=[7, 8, 9])
        agent = agent.reopened() if reopen else agent
        lives.append([first, agent.turn([9, 10, 11], steps=[3, 4])])

    assert all(torch.equal(a, b) for a, b in zip(*lives, strict=True))


def test_what_cannot_be_rounded_is_refused() -> None:
    """Without a linear layer, or elsewhere than on the CPU; the message says what to use."""
    with pytest.raises(UnsupportedModelError, match="no linear layer"):
        round_linears(nn.Embedding(4, 4))
    with pytest.raises(UnsupportedModelError, match="is on meta"):
        round_linears(nn.Linear(4, 4, device="meta"))

"""Rows of a matrix product: whether they depend on how many there are is found out, and mended or said."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from agentmem.engine import packed
from agentmem.engine.int8 import Int8Linear, round_linears
from agentmem.engine.packed import PackedLinear, pack_linears
from agentmem.engine.rows import ROWS, cancelling, fewest_alike, most_alike
from support.tiny_language_model import plain_model

can_pack = pytest.mark.skipif(not packed._usable(), reason="this CPU or torch has no packed bfloat16 kernels")


@pytest.fixture(autouse=True)
def no_gradients() -> object:
    """As the engine runs."""
    with torch.no_grad():
        yield


@pytest.mark.parametrize(("columns", "outputs"), [(96, 7), (97, 600), (1536, 40)])
def test_products_cancel_but_for_rounding(columns: int, outputs: int) -> None:
    """Exactly 0 in long arithmetic, something else in short."""
    weight, inputs = cancelling(columns, outputs)

    assert weight.shape == (min(outputs, 512), columns)
    assert inputs.shape == (ROWS, columns)
    assert float((inputs.double() @ weight.double().T).abs().max()) <= 1e-10
    assert float((inputs @ weight.T != 0).float().mean()) >= 0.5


@pytest.mark.parametrize("fewest", [1, 2, 5, ROWS])
def test_another_result_for_few_rows_is_noticed(fewest: int) -> None:
    """A kernel that changes at some number of rows is found to."""

    def product(rows: Tensor) -> Tensor:
        return rows * (1.0 if len(rows) >= fewest else 1.0000001)

    assert fewest_alike(product, torch.ones(ROWS, 4)) == fewest


def test_a_result_that_depends_on_the_place_is_noticed() -> None:
    """Then no number of rows helps."""
    assert fewest_alike(lambda rows: rows.cumsum(0), torch.ones(ROWS, 4)) == ROWS + 1


@can_pack
@pytest.mark.parametrize("columns", [96, 1000, 1536, 4864])
def test_a_packed_layer_gives_a_row_the_same_bits_in_any_company(columns: int) -> None:
    """Alone, beside others, first or last, in one sequence or several."""
    weight, inputs = cancelling(columns, 64)
    layer = nn.Linear(columns, 64, bias=False, dtype=torch.bfloat16)
    layer.weight.copy_(weight)
    made, x = PackedLinear(layer), inputs.bfloat16()

    assert made.alike_rows == ROWS
    assert fewest_alike(made, x) == 1
    assert torch.equal(made(x[:, None]), made(x)[:, None])
    assert torch.equal(made(x[None, :1]), made(x)[None, :1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("columns", [96, 1536])
def test_an_int8_layer_gives_a_row_the_same_bits_in_any_company(columns: int, dtype: torch.dtype) -> None:
    """With a bias as without."""
    weight, inputs = cancelling(columns, 64)
    layer = nn.Linear(columns, 64, dtype=dtype)
    layer.weight.copy_(weight)
    made = Int8Linear(layer)

    assert made.alike_rows == ROWS
    assert fewest_alike(made, inputs.to(dtype)) == 1


def test_int8_leaves_widths_that_torch_reads_past() -> None:
    """Torch's int8 product reads 16 columns at once, and ends the process where there are fewer."""
    model = nn.Sequential(nn.Linear(64, 40), nn.Linear(40, 16))

    assert round_linears(model) == 1
    assert isinstance(model[0], Int8Linear)
    assert type(model[1]) is nn.Linear


def test_a_model_is_as_alike_as_its_least_alike_layer() -> None:
    """Embeddings and norms do not count; a layer that says nothing of itself may be anything."""
    model = plain_model(dtype="bfloat16")
    assert most_alike(model) == 1
    assert most_alike(nn.Sequential(nn.Embedding(9, 4), nn.LayerNorm(4))) == ROWS

    if pack_linears(model):
        assert most_alike(model) == ROWS
        next(layer for layer in model.modules() if isinstance(layer, PackedLinear)).alike_rows = 3
        assert most_alike(model) == 3

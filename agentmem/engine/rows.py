"""Whether a row of a matrix product gets the same bits however many rows are multiplied with it.

A kernel may add up in another order for one row than for several, so a token's result could depend on what else is
being computed. Kernels choose by shape, so this is tried on a layer of the same shape, whose sums cancel: nothing
but rounding is left of them, and any other order shows in nearly every one. Knows no kind of layer and no model.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

ROWS = 8
"""The most agents whose steps are one pass of the model, and so the most rows that must be alike."""
_WIDTH = 512
"""Outputs that are tried of a layer, at most."""


def cancelling(columns: int, outputs: int) -> tuple[Tensor, Tensor]:
    """A weight (N, K), N at most 512, and inputs (ROWS, K), fp32, whose products are 0 but for rounding."""
    generator = torch.Generator().manual_seed(columns)
    half = columns // 2
    order = torch.randperm(columns, generator=generator)
    weight = torch.zeros(min(outputs, _WIDTH), columns)
    inputs = torch.zeros(ROWS, columns)
    weight[:, :half] = torch.randn(len(weight), half, generator=generator)
    weight[:, half : 2 * half] = -weight[:, :half]
    inputs[:, :half] = torch.randn(ROWS, half, generator=generator)
    inputs[:, half : 2 * half] = inputs[:, :half]
    return weight[:, order], inputs[:, order]


def fewest_alike(product: Callable[[Tensor], Tensor], inputs: Tensor) -> int:
    """From how many rows on a row has the bits it has among all of ``inputs`` (ROWS, K), wherever it stands.

    1: always. ROWS + 1: not even then.
    """
    whole = product(inputs)
    if not torch.equal(product(inputs.flip(0)).flip(0), whole):
        return ROWS + 1
    for count in range(ROWS - 1, 0, -1):
        for start in range(ROWS - count + 1):
            if not torch.equal(product(inputs[start : start + count]), whole[start : start + count]):
                return count + 1
    return 1


def most_alike(model: nn.Module) -> int:
    """Up to how many rows every matrix product of a model is known to give a row the same bits; 1: unknown.

    A layer says so by an attribute ``alike_rows``. One that does not, and has a matrix, decides for all: in the
    whole model's output its other bits may not show for long. Embeddings are looked up, not multiplied.
    """
    most = ROWS
    for module in model.modules():
        alike = getattr(module, "alike_rows", None)
        if isinstance(alike, int):
            most = min(most, alike)
        elif not isinstance(module, nn.Embedding) and any(
            parameter.ndim > 1 for parameter in module.parameters(recurse=False)
        ):
            return 1
    return most

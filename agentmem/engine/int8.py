"""Linear layers whose weights are one byte each: half the bytes a decoded token has to read.

Weight-only: each row of a weight (N, K) is rounded to 255 steps of its own size, activations stay as they are.
A few tokens go through an int8 product (:func:`agentmem_kernels.multiply_int8`); for many, blocks of rows are widened to the activations' dtype in
reused memory and multiplied as usual, since that product is made for few. Another model as far as memories are
concerned: its K/V differ. Knows no model by name.
"""

from __future__ import annotations

import functools
import threading

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from agentmem.engine.linears import replace_linears
from agentmem.engine.rows import ROWS, cancelling, fewest_alike
from agentmem.errors import UnsupportedModelError
from agentmem_kernels import multiply_int8

FEW_TOKENS = 24
"""Up to so many the int8 product is faster: on one thread at K = 896 it takes 1.8 ms for 32 tokens, widening 1.5."""
_STEP = 16
"""Columns that torch's product reads at once, whether they are there or not."""
WIDENED = 1 << 22
"""Weights widened at once: 8 MB in bfloat16, which stays in the cache."""


class _Scratch(threading.local):
    """One reused buffer per thread, for all layers."""

    def __init__(self) -> None:
        self.buffer = torch.empty(0)

    def view(self, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """Uninitialised memory (rows, columns)."""
        if self.buffer.dtype != dtype or self.buffer.numel() < rows * columns:
            # Born outside inference mode: a tensor born inside could not be written outside later.
            with torch.inference_mode(False):
                self.buffer = torch.empty(max(WIDENED, rows * columns), dtype=dtype)
        return self.buffer[: rows * columns].view(rows, columns)


_scratch = _Scratch()


class Int8Linear(nn.Module):
    """As ``nn.Linear``, its weight (N, K) rounded to int8 by rows; on the CPU.

    The largest weight of a row becomes 127, so none is off by more than 1/254 of it (and the rounding of the scale).
    """

    def __init__(self, original: nn.Linear) -> None:
        super().__init__()
        self.in_features = original.in_features
        self.out_features = original.out_features
        self.bias = original.bias
        with torch.inference_mode(False), torch.no_grad():
            wide = original.weight.detach()
            scales = (wide.float().abs().amax(1) / 127).clamp_min(1e-12).to(wide.dtype)
            steps = (wide.float() / scales.float()[:, None]).round_().clamp_(-127, 127)
            self.register_buffer("steps", steps.to(torch.int8))
            self.register_buffer("scales", scales)
        self._rows = max(1, WIDENED // self.in_features)
        self.alike_rows = _alike_rows(self.in_features, self.out_features, original.weight.dtype)

    @property
    def weight(self) -> Tensor:
        """What the layer multiplies by, as an ordinary copy (N, K)."""
        steps, scales = self._held()
        return steps.to(scales.dtype) * scales[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """Multiply (..., K) -> (..., N), in x's dtype, which is that of the scales."""
        steps, scales = self._held()
        rows = x.reshape(-1, self.in_features)
        if len(rows) <= FEW_TOKENS:
            out = multiply_int8(rows, steps, scales)
        else:
            out = self._widened(rows, steps).mul_(scales)
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        )

    def _widened(self, rows: Tensor, steps: Tensor) -> Tensor:
        """The product with the steps, not yet scaled: whole numbers up to 127 are exact in any float dtype."""
        out = rows.new_empty(len(rows), self.out_features)
        for start in range(0, self.out_features, self._rows):
            block = steps[start : start + self._rows]
            wide = _scratch.view(len(block), self.in_features, rows.dtype).copy_(block)
            out[:, start : start + len(block)] = linear(rows, wide)
        return out

    def _held(self) -> tuple[Tensor, Tensor]:
        steps, scales = self.steps, self.scales
        assert isinstance(steps, Tensor)
        assert isinstance(scales, Tensor)
        return steps, scales


def round_linears(model: nn.Module) -> int:
    """Round every plain linear layer to int8, in place; returns how many.

    Raises:
        UnsupportedModelError: the model is not on the CPU, has no such layer, or torch has no int8 product here.
    """
    name = type(model).__name__
    places = {str(tensor.device.type) for tensor in model.parameters()}
    if places != {"cpu"}:
        raise UnsupportedModelError(
            f"{name} is on {', '.join(sorted(places))}, but int8 weights work on the CPU alone; "
            "leave out :int8, or use device='cpu'."
        )
    if not _usable():
        raise UnsupportedModelError(f"torch {torch.__version__} has no int8 product here; leave out :int8.")
    count = replace_linears(model, _rounded)
    if not count:
        raise UnsupportedModelError(f"{name} has no linear layer to round to int8; leave out :int8.")
    return count


def _rounded(original: nn.Linear) -> nn.Module | None:
    """Its int8 form; None for a width that torch's product reads past the end of, which ends the process."""
    return Int8Linear(original) if original.in_features % _STEP == 0 else None


@functools.cache
def _alike_rows(columns: int, outputs: int, dtype: torch.dtype) -> int:
    """Up to how many rows the int8 product of that shape gives each the bits it has alone."""
    with torch.inference_mode(False), torch.no_grad():
        weight, inputs = cancelling(columns, outputs)
        steps, scales = (16 * weight).round_().to(torch.int8), torch.ones(len(weight), dtype=dtype)

        def product(rows: Tensor) -> Tensor:
            return multiply_int8(rows, steps, scales)

        return ROWS if fewest_alike(product, inputs.to(dtype)) == 1 else 1


@functools.cache
def _usable() -> bool:
    """Whether torch's int8 product is there and right: it is no part of torch's public face."""
    steps = torch.arange(-64, 64, dtype=torch.int8).view(2, 64)
    x, scales = torch.ones(1, 64), torch.tensor([0.5, 2.0])
    try:
        out = torch._weight_int8pack_mm(x, steps, scales)  # noqa: SLF001
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False
    return torch.equal(out, (steps.sum(1) * scales)[None])

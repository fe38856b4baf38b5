"""Linear layers whose weights lie as the CPU's matrix kernels read them.

oneDNN keeps a layout of its own; given ordinary weights it reads them in an order that halves its bandwidth for
one token, or lays them out anew for many. Packed once, one token takes about half the time and a chunk 4 % less,
and the results are the same bit for bit. Used for bfloat16 on CPUs that oneDNN computes it on; knows no model
by name.

Its kernels add up in another order for one row than for several when K is large (above 1,024 with AVX-512). A row
that would come out otherwise alone is multiplied beside empty ones, which costs nothing while the weights' bytes
decide the time: so a token's result does not depend on who else is being served.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from agentmem.engine.linears import replace_linears
from agentmem.engine.rows import ROWS, cancelling, fewest_alike


class PackedLinear(nn.Module):
    """As ``nn.Linear`` with bfloat16 weights (N, K); the ordinary copy is let go of.

    Its state dict holds the weight as it was, so a model with packed layers is saved like any other.
    """

    def __init__(self, original: nn.Linear) -> None:
        super().__init__()
        self.in_features = original.in_features
        self.out_features = original.out_features
        self.bias = original.bias
        self._multiply = torch.ops.mkldnn._linear_pointwise.default  # noqa: SLF001 what torch.compile emits
        fewest = _fewest_alike(self.in_features, self.out_features)
        self.alike_rows = ROWS if fewest <= ROWS else 1
        self._fewest = fewest if fewest <= ROWS else 1
        with torch.inference_mode(False), torch.no_grad():
            self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(original.weight.detach(), None)  # noqa: SLF001

    @property
    def weight(self) -> Tensor:
        """An ordinary copy (N, K) of the weight: as slow as it looks."""
        return self._packed.to_dense()

    def forward(self, x: Tensor) -> Tensor:
        """Multiply (..., K) -> (..., N)."""
        count = x.numel() // self.in_features
        if count >= self._fewest:
            result: Tensor = self._multiply(x, self._packed, self.bias, "none", [], "")
            return result
        rows = pad(x.reshape(count, self.in_features), (0, 0, 0, self._fewest - count))
        padded: Tensor = self._multiply(rows, self._packed, self.bias, "none", [], "")
        return padded[:count].view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        )

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:  # noqa: FBT001
        destination[prefix + "weight"] = self.weight
        super()._save_to_state_dict(destination, prefix, keep_vars)


def pack_linears(model: nn.Module) -> int:
    """Pack every plain bfloat16 linear layer on the CPU, in place; returns how many.

    0 where torch or the CPU cannot, which changes nothing but the speed. Embeddings stay as they are: a head
    that shares their weights gets a packed copy of its own.
    """
    return replace_linears(model, _packed) if _usable() else 0


def _packed(original: nn.Linear) -> nn.Module | None:
    if original.weight.dtype != torch.bfloat16 or original.weight.device.type != "cpu":
        return None
    return PackedLinear(original)


@functools.cache
def _fewest_alike(columns: int, outputs: int) -> int:
    """See :func:`fewest_alike`, for packed layers of that shape."""
    with torch.inference_mode(False), torch.no_grad():
        weight, inputs = cancelling(columns, outputs)
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.bfloat16(), None)  # noqa: SLF001
        multiply = torch.ops.mkldnn._linear_pointwise.default  # noqa: SLF001
        return fewest_alike(lambda rows: multiply(rows, packed, None, "none", [], ""), inputs.bfloat16())


@functools.cache
def _usable() -> bool:
    """Whether torch has these kernels and they give the ordinary layer's own bits here.

    They are not part of torch's public face, so they are tried rather than trusted.
    """
    with torch.inference_mode(False), torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = nn.Linear(96, 80, dtype=torch.bfloat16)
        x = torch.randn(3, 96, dtype=torch.bfloat16)
        try:
            if not torch.ops.mkldnn._is_mkldnn_bf16_supported():  # noqa: SLF001
                return False
            packed = PackedLinear(layer)
            rows = all(torch.equal(packed(x[:n]), linear(x[:n], layer.weight, layer.bias)) for n in (1, 3))
            return rows and torch.equal(packed.weight, layer.weight)
        except (AttributeError, RuntimeError, NotImplementedError, TypeError):
            return False

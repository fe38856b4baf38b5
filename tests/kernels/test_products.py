"""Attention as matrix products: what the specification says, and hardly less exact than torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from agentmem_kernels import reference
from agentmem_kernels.products import attend_by_products
from agentmem_kernels.scratch import Fresh


def case(
    B: int, Hq: int, Hkv: int, T: int, S: int, D: int, size: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Random queries, keys and values in bfloat16; ``size`` is that of queries and keys."""
    generator = torch.Generator().manual_seed(S)
    shapes = [(B, Hq, T, D), (B, Hkv, S, D), (B, Hkv, S, D)]
    q, keys, values = (torch.randn(shape, generator=generator) for shape in shapes)
    return (q * size).bfloat16(), (keys * size).bfloat16(), values.bfloat16()


def causal(T: int, S: int) -> Tensor:
    """New tokens see the past and themselves."""
    return torch.zeros(T, S).masked_fill(torch.ones(T, S).triu(S - T + 1).bool(), float("-inf")).bfloat16()


@pytest.mark.parametrize("scaling", [0.125, 0.3])
@pytest.mark.parametrize("masked", ["no", "2-D", "per head", "per batch"])
@pytest.mark.parametrize(
    "shape", [(1, 14, 2, 33, 131, 64), (2, 6, 2, 13, 29, 8), (1, 5, 5, 17, 41, 24), (1, 3, 1, 9, 9, 4)]
)
def test_products_equal_the_reference(shape: tuple[int, ...], masked: str, scaling: float) -> None:
    """Any number of heads and keys, masks of every form, scales that are powers of two and others."""
    B, Hq, _, T, S, _ = shape
    q, keys, values = case(*shape)
    mask = None if masked == "no" else causal(T, S)
    if masked == "per head" and mask is not None:
        slope = torch.linspace(0, 1, Hq).view(1, Hq, 1, 1) * torch.arange(S) / S
        mask = (mask + slope).bfloat16()
    elif masked == "per batch" and mask is not None:
        mask = mask.expand(B, 1, T, S)

    wanted = reference.attend(q, keys, values, scaling=scaling, mask=mask)
    found = attend_by_products(q, keys, values, scaling=scaling, mask=mask, scratch=Fresh())

    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), wanted.float(), atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("size", [0.3, 1.0, 3.0])
def test_large_logits_are_told_apart(size: float) -> None:
    """Beside double precision the error is at most twice that of torch's fused attention, however large logits are."""
    q, keys, values = case(1, 4, 2, 64, 700, 64, size)
    mask = causal(64, 700)
    exact = scaled_dot_product_attention(
        q.double(), keys.double(), values.double(), attn_mask=mask.double(), scale=0.125, enable_gqa=True
    )

    def error(found: Tensor) -> float:
        return float((found.double() - exact).pow(2).mean().sqrt())

    fused = scaled_dot_product_attention(q, keys, values, attn_mask=mask, scale=0.125, enable_gqa=True)
    ours = attend_by_products(q, keys, values, scaling=0.125, mask=mask, scratch=Fresh())
    assert error(ours) <= 2 * error(fused)


def test_what_was_left_in_lent_memory_does_not_matter() -> None:
    """The same bits from memory full of NaN."""

    class Soiled(Fresh):
        def room(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:  # type: ignore[override]
            return super().room(name, shape, dtype).fill_(torch.nan)

    q, keys, values = case(1, 4, 2, 20, 90, 16)
    clean, soiled = (
        attend_by_products(q, keys, values, scaling=0.25, mask=None, scratch=scratch)
        for scratch in (Fresh(), Soiled())
    )
    assert torch.equal(clean, soiled)

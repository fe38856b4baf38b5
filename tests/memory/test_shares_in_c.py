"""Shares of attention by the compiled kernel: those that the written-out form gives."""

from __future__ import annotations

import pytest
import torch

from agentmem.memory.shares import block_mass
from agentmem_kernels import backends, on_cpu


@pytest.mark.skipif(on_cpu.hindrance() is not None, reason=f"no kernels in C: {on_cpu.hindrance()}")
@pytest.mark.parametrize("T", [1, 7, 32])
@pytest.mark.parametrize("scaling", [0.125, 0.09])
def test_shares_are_those_of_the_written_out_form(
    monkeypatch: pytest.MonkeyPatch, T: int, scaling: float
) -> None:
    """Recalled blocks between sinks and window, causal queries, several heads a group."""
    generator = torch.Generator().manual_seed(T)
    queries = torch.randn(6, T, 64, generator=generator).bfloat16()
    keys = torch.randn(2, 200, 64, generator=generator).bfloat16()
    mask = torch.zeros(T, 200).masked_fill(torch.ones(T, 200).triu(200 - T + 1).bool(), -torch.inf)
    how = {"scaling": scaling, "softcap": None, "sinks": None, "mask": mask.bfloat16(), "causal": True}

    found, rows = block_mass(queries, keys, slice(10, 74), 4, **how)
    monkeypatch.setattr(backends, "_AUTO", "torch")
    wanted, same = block_mass(queries, keys, slice(10, 74), 4, **how)

    assert rows == same == 6 * T
    assert found.shape == (2, 4) and torch.allclose(found, wanted, rtol=1e-4)

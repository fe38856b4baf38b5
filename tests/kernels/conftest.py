"""Triton's kernels are tested where a GPU is, on it; elsewhere by Triton's interpreter, on the CPU."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Where Triton's kernels are run: interpreted on the CPU, and compiled on a GPU."""
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed: there is none for this system")
    if request.param == "cpu" and torch.cuda.is_available():
        pytest.skip("a GPU is here, so kernels are compiled for it and not interpreted")
    return str(request.param)

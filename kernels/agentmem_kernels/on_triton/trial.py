"""The smallest kernel there is: whether Triton compiles and runs on a device at all."""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def _count(out, N: tl.constexpr):
    """Write 0 .. N - 1."""
    i = tl.arange(0, N)
    tl.store(out + i, i)


def trial(device: torch.device) -> None:
    """Run it once. Raises whatever Triton raises, or RuntimeError when the result is wrong."""
    out = torch.full((16,), -1, dtype=torch.int32, device=device)
    with around(out):
        _count[(1,)](out, N=16)
    if out.tolist() != list(range(16)):
        raise RuntimeError(f"expected 0 to 15, got {out.tolist()}")


def around(tensor: torch.Tensor) -> torch.cuda.device:
    """Triton launches on the current device: a context in which that is the tensor's."""
    return torch.cuda.device(tensor.device if tensor.is_cuda else -1)

"""Which implementation of a kernel runs: torch's own operations, or Triton's compiled ones.

What "auto" means says the environment variable ``AGENTMEM_KERNELS`` (torch, auto or triton, read at import). It is
torch by default: the Triton kernels agree with their specification in Triton's interpreter and compile for GPUs, but have
not yet been run on one. Set to auto, Triton is taken for tensors on a GPU where it works, which is tried out once per
process and device, and torch everywhere else. So one machine always takes the same one, and results do not depend on
chance. An implementation that was asked for by name and cannot run is an error; nothing falls back then.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor

Backend = Literal["auto", "torch", "triton"]
T = TypeVar("T")

VARIABLE = "AGENTMEM_KERNELS"
_NAMES: tuple[str, ...] = get_args(Backend)
_AUTO = os.environ.get(VARIABLE, "torch")
_refused: set[str] = set()  # kernels that Triton could not build here: tried once each


class BackendError(RuntimeError):
    """An implementation was asked for by name and cannot run here; the message says why and what to do."""


def accelerated(tensor: Tensor, backend: Backend = "auto") -> bool:
    """Whether a kernel of this package takes Triton for this tensor.

    Raises:
        BackendError: Triton was asked for and cannot run, or the backend has no such name.
    """
    asked = _AUTO if backend == "auto" else backend
    if asked not in _NAMES:
        raise BackendError(
            f"backend={asked!r} is unknown; use auto, torch or triton (also in the variable {VARIABLE})"
        )
    if asked == "torch" or (asked == "auto" and not tensor.is_cuda):
        return False
    hindrance = _hindrance(tensor.device)
    if hindrance is not None and asked == "triton":
        raise BackendError(f"backend='triton' cannot run: {hindrance}, or use backend='auto'")
    return hindrance is None


def first_that_runs(
    name: str, tensor: Tensor, backend: Backend, triton: Callable[[], T], plain: Callable[[], T]
) -> T:
    """Run a kernel by Triton or by torch.

    A kernel that Triton cannot build for this GPU (too little shared memory, say) goes to torch on "auto", from
    then on always.

    Raises:
        BackendError: Triton was asked for and cannot run.
    """
    if not accelerated(tensor, backend):
        return plain()
    explicit = (_AUTO if backend == "auto" else backend) == "triton"
    if name in _refused and not explicit:
        return plain()
    from triton.compiler.errors import CompilationError  # noqa: PLC0415  # only where Triton runs
    from triton.runtime.errors import OutOfResources  # noqa: PLC0415  # only where Triton runs

    try:
        return triton()
    except (CompilationError, OutOfResources) as error:
        if explicit:
            raise BackendError(
                f"Triton cannot build {name} here ({type(error).__name__}: {error}); use backend='auto'"
            ) from error
        _refused.add(name)
        return plain()


def interpreting() -> bool:
    """Whether Triton interprets kernels instead of compiling them, which works on the CPU and is slow."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _hindrance(device: torch.device) -> str | None:
    """Why Triton cannot run for tensors on this device, and the remedy; None when it can."""
    if find_spec("triton") is None:
        return "Triton is not installed; install it (pip install triton)"
    if device.type != "cuda" and not interpreting():
        return (
            f"the tensors are on {device}; move them to a GPU, or set TRITON_INTERPRET=1 to try it out slowly"
        )
    from agentmem_kernels.on_triton.trial import trial  # noqa: PLC0415  # only where Triton runs

    try:
        trial(device)
    except Exception as error:  # noqa: BLE001  # whatever is missing (a driver, a C compiler), the remedy is one
        return f"a trial on {device} failed ({type(error).__name__}: {error}); mend what it names"
    return None

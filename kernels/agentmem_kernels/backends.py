"""Which implementation of a kernel runs: torch's own operations, C compiled on the spot, or Triton.

On "auto" the compiled C is taken for bfloat16 on CPUs that it is made for, where there is a compiler and a trial in
this process agreed with the specification; torch everywhere else. The Triton kernels agree with their specification in Triton's
interpreter and compile for GPUs, but have not yet been run on one, so they are taken only when the environment variable
``AGENTMEM_KERNELS`` (read at import) is auto, for tensors on a GPU where they work. Its other values are torch (nothing
else), native (C, or an error where it cannot run) and triton (likewise). So one machine always takes the same one, and results do
not depend on chance. An implementation that was asked for by name and cannot run is an error; nothing falls back then.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor

from agentmem_kernels import on_cpu

Backend = Literal["auto", "torch", "native", "triton"]
T = TypeVar("T")

VARIABLE = "AGENTMEM_KERNELS"
_NAMES: tuple[str, ...] = get_args(Backend)
_UNSET = "torch or native"
_AUTO = os.environ.get(VARIABLE, _UNSET)
_refused: set[str] = set()  # kernels that Triton could not build here: tried once each


class BackendError(RuntimeError):
    """An implementation was asked for by name and cannot run here; the message says why and what to do."""


def accelerated(tensor: Tensor, backend: Backend = "auto") -> bool:
    """Whether a kernel of this package takes Triton for this tensor.

    Raises:
        BackendError: Triton was asked for and cannot run, or the backend has no such name.
    """
    asked = _asked(backend)
    if asked not in ("auto", "triton") or (asked == "auto" and not tensor.is_cuda):
        return False
    hindrance = _hindrance(tensor.device)
    if hindrance is not None and asked == "triton":
        raise BackendError(f"backend='triton' cannot run: {hindrance}, or use backend='auto'")
    return hindrance is None


def native(*tensors: Tensor, fits: bool = True, backend: Backend = "auto") -> bool:
    """Whether a kernel that is written in C, too, takes it for these tensors; ``fits``: their shapes are for it.

    Raises:
        BackendError: it was asked for and cannot run, or the backend has no such name.
    """
    asked = _asked(backend)
    if asked in ("torch", "triton"):
        return False
    takes = fits and on_cpu.takes(*tensors)
    if not takes and backend != "native":
        return False
    hindrance = (
        on_cpu.hindrance() if takes else "it takes even numbers of bfloat16 on the CPU, without gradients"
    )
    if hindrance is not None and asked == "native":
        raise BackendError(f"backend='native' cannot run: {hindrance}, or use backend='auto'")
    return hindrance is None


def _asked(backend: Backend) -> str:
    asked = _AUTO if backend == "auto" else backend
    if asked not in (*_NAMES, _UNSET):
        raise BackendError(
            f"backend={asked!r} is unknown; use auto, torch, native or triton (also in the variable {VARIABLE})"
        )
    return asked


def first_that_runs(
    name: str, tensor: Tensor, backend: Backend, triton: Callable[[], T], plain: Callable[[], T]
) -> T:
    """Run a kernel by Triton or by torch.

    A kernel that Triton cannot build for this GPU (too little shared memory, say) goes to torch on "auto", from
    then on always.

    Raises:
        BackendError: Triton was asked for and cannot run, or C, which this kernel is not written in.
    """
    if backend == "native":
        raise BackendError(f"{name} is not written in C; use backend='auto'")
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

"""The compiled kernels, loaded into this process. Knows no tensors.

Threads are torch's own: the entry of the OpenMP runtime that torch brings is looked up in torch's library and handed to
the kernels, because a second runtime would fight the first one's waiting threads for the cores. Where torch has another
runtime, the kernels run on one thread.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch

from agentmem_kernels.on_cpu.building import BuildError, built, discard


@cache
def loaded() -> ctypes.CDLL:
    """The library. Raises BuildError."""
    path = built()
    try:
        library = ctypes.CDLL(str(path))
    except OSError:  # it was damaged after it was made
        discard(path)
        path = built()
        try:
            library = ctypes.CDLL(str(path))
        except OSError as error:
            raise BuildError(f"what was compiled cannot be loaded: {error}; mend what it names") from error
    for name in ("attend", "enter", "int8", "masses", "rotate"):
        kernel = getattr(library, f"agentmem_{name}")
        kernel.restype, kernel.argtypes = None, [ctypes.c_void_p]
    return library


@cache
def parallel() -> int | None:
    """The address of GNU OpenMP's entry inside torch; None where torch has another runtime."""
    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        entry = ctypes.CDLL(str(path)).GOMP_parallel
    except (OSError, AttributeError):
        return None
    return ctypes.cast(entry, ctypes.c_void_p).value

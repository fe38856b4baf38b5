"""Compiles every Triton kernel for a GPU that need not be there: ``python gpu_compiling.py 90`` for compute 9.0.

Launches are turned into compilations, with the arguments that a default model's layer gives. The interpreter accepts
more than the compiler does, so this is run beside it. Prints a kernel's name per line.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from agentmem_kernels import Rotation
from agentmem_kernels.on_triton import masses, neighbours, placing, ranking


class AbsentGPU:
    """As much of a driver as compiling asks for."""

    def __init__(self, compute: int) -> None:
        self._compute = compute

    def get_current_target(self) -> GPUTarget:
        """What is compiled for."""
        return GPUTarget("cuda", self._compute, 32)

    def get_current_device(self) -> int:
        """The first, if there were one."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """The default one."""
        return 0


def compile_all(compute: int) -> None:
    """Compile; raises what Triton raises."""
    driver.set_active(AbsentGPU(compute))
    launch = JITFunction.run

    def compiled(self: Any, *args: Any, grid: Any, warmup: bool, **keywords: Any) -> Any:
        print(self.__name__, len(launch(self, *args, grid=grid, warmup=True, **keywords).asm["cubin"]) > 0)

    JITFunction.run = compiled
    D, kind = 64, torch.bfloat16
    rotation = Rotation(
        torch.zeros(99, D, dtype=kind), torch.zeros(99, D, dtype=kind), torch.arange(D), False
    )
    x = torch.zeros(2, 50, D, dtype=kind)
    tokens = torch.zeros(2, 50, dtype=torch.int64)
    for table in (rotation, None):
        placing.rotate_into(x, x, table, 3, x, x, tokens)
        kept = (torch.zeros(14, 50, D, dtype=kind), x, x)
        placing.enter(torch.zeros(14, 1, D, dtype=kind), x[:, :1], x[:, :1], table, 3, x, x, kept, 0)
    queries, dead = torch.zeros(2, 112, D), torch.zeros(2, 9, 32, dtype=torch.bool)
    masses.block_masses(queries, torch.zeros(2, 3000, 1, D, dtype=kind), None, None, None)
    masses.block_masses(queries, torch.zeros(2, 64, 32, D, dtype=kind), tokens[:, :9].contiguous(), dead, 8)
    ranking.sort_keys(torch.zeros(2, 3000), torch.ones(3000, dtype=torch.bool))
    ranking.sort_keys(torch.zeros(2, 3000, dtype=torch.int64), None)
    alive = torch.ones(3000, dtype=torch.bool)
    neighbours.best_and_neighbours(torch.zeros(3, 2, 50), tokens, 3000, 8, 5, 0.5, alive)


if __name__ == "__main__":
    compile_all(int(sys.argv[1]))

"""Kernels in C for CPUs with AVX-512 BF16: attention and masses of blocks without intermediate results in memory, new tokens' rotation, int8 weights.

Compiled on the machine they run on, by its own C compiler, at first use; where there is none, torch's operations
are taken. The C files are the kernels, :mod:`.building` compiles and keeps them, :mod:`.library`
loads them, :mod:`.calls` hands them tensors, :mod:`.trial` says whether they can be used.
"""

from agentmem_kernels.on_cpu.calls import attend, block_masses, enter, fits, multiply_int8, rotate, takes
from agentmem_kernels.on_cpu.trial import hindrance

__all__ = ["attend", "block_masses", "enter", "fits", "hindrance", "multiply_int8", "rotate", "takes"]

"""Attention, and what brings blocks of a long memory before it. Depends on torch; on a C compiler and Triton where they are.

:func:`attend` attends to keys that already carry their positions; :func:`rotate_into` and :func:`enter` give them;
:func:`block_masses`, :func:`best_blocks` and :func:`best_and_neighbours` score and choose blocks; :func:`round_rows` and
:func:`widen_rows` hold keys and values in one byte an element, :func:`multiply_int8` weights. :mod:`agentmem_kernels.reference` is the
specification they are tested against. All take plain tensors and know neither caches nor models nor agentmem.
Which implementation runs is :mod:`agentmem_kernels.backends`' affair.
"""

from agentmem_kernels.backends import Backend, BackendError, accelerated
from agentmem_kernels.fast import attend
from agentmem_kernels.int8_rows import Channels, round_rows, widen_rows
from agentmem_kernels.int8_weights import multiply_int8
from agentmem_kernels.masses import block_masses, in_one_kernel
from agentmem_kernels.neighbours import best_and_neighbours
from agentmem_kernels.placing import Kept, enter, in_one_call, rotate_into, turns_in_one_call
from agentmem_kernels.ranking import best_blocks, sort_keys
from agentmem_kernels.rotation import Rotation

__all__ = [
    "Backend",
    "BackendError",
    "Channels",
    "Kept",
    "Rotation",
    "accelerated",
    "attend",
    "best_and_neighbours",
    "best_blocks",
    "block_masses",
    "enter",
    "in_one_call",
    "in_one_kernel",
    "multiply_int8",
    "rotate_into",
    "round_rows",
    "sort_keys",
    "turns_in_one_call",
    "widen_rows",
]

"""Attention over keys that already carry their positions. Depends on torch alone; knows nothing of agentmem.

:func:`attend` is the fast path, :func:`agentmem_kernels.reference.attend` the specification it is
tested against. Both take (B, H, T, D) tensors and know neither caches nor models.
"""

from agentmem_kernels.fast import attend

__all__ = ["attend"]

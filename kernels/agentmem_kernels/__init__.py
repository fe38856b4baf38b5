"""Kernels of agentmem: torch, with triton where it is there. Knows nothing of agentmem."""

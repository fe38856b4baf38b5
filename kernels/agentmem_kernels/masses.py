"""How much of the queries' attention each block would get, if these blocks were all there is.

Each query row is a softmax distribution over all keys of all blocks; rows are added up, and so are the keys of a
block. With one key per block, its digest, that is the score by digests of a coarse stage; with a block's real
keys its share of the exponentiated log-sum-exp of q.k, the exact second stage. Knows no rule and no log.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem_kernels.backends import Backend, first_that_runs

WIDEST = 256
"""Vectors wider than this go to torch on "auto": two tiles of them would not fit a GPU's shared memory."""


def block_masses(
    queries: Tensor,
    keys: Tensor,
    *,
    index: Tensor | None = None,
    dead: Tensor | None = None,
    edge: int | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Attention mass of blocks, summed over query rows.

    Args:
        queries: (Hkv, M, W) scaled, so that q.k is a logit; rounded to the keys' dtype before the product.
        keys: (Hkv, N, L, W), L keys a block; the last dim is contiguous.
        index: (Hkv, C) int64, which blocks per head, contiguous, each in [0, N), which is not checked on a GPU;
            None: all N, and C is N.
        dead: (Hkv, C, L) bool, contiguous, keys that count for nothing.
        edge: if given, also the mass of each block's first and last so many keys.
        backend: see :mod:`.backends`.

    Returns:
        (1, Hkv, C) fp32, or with ``edge`` (3, Hkv, C): whole, first keys, last keys. A row adds up to 1 over
        the living keys; where none lives, to 0.

    Raises:
        ValueError: shapes do not fit.
        BackendError: the backend asked for cannot run.
    """
    _check(queries, keys, index, dead, edge)
    Hkv, M, W = queries.shape
    C, L = keys.shape[1] if index is None else index.shape[1], keys.shape[2]
    if not (Hkv and M and C and L):
        return torch.zeros(1 if edge is None else 3, Hkv, C, device=queries.device)

    def by_triton() -> Tensor:
        from agentmem_kernels.on_triton import masses  # noqa: PLC0415  # only where Triton runs

        return masses.block_masses(queries, keys, index, dead, edge)

    def plain() -> Tensor:
        return _plain(queries, keys, index, dead, edge)

    if W > WIDEST and backend == "auto":
        return plain()
    return first_that_runs("block_masses", queries, backend, by_triton, plain)


def _plain(
    queries: Tensor, keys: Tensor, index: Tensor | None, dead: Tensor | None, edge: int | None
) -> Tensor:
    """Torch's operations: products in the keys' dtype, everything behind them in fp32."""
    Hkv, M, W = queries.shape
    L = keys.shape[2]
    if index is not None:
        keys = keys.gather(1, index[..., None, None].expand(*index.shape, L, W))
    rows = keys.reshape(Hkv, -1, W)
    logits = torch.bmm(queries.to(keys.dtype), rows.transpose(1, 2)).float().view(Hkv, M, -1, L)
    if dead is not None:
        logits = logits.masked_fill(dead[:, None], -torch.inf)
    highest = logits.amax((2, 3), keepdim=True)
    weights = logits.sub_(highest.masked_fill_(highest == -torch.inf, 0.0)).exp_()
    parts = [weights] if edge is None else [weights, weights[..., :edge], weights[..., L - edge :]]
    sums = [part.sum(3) for part in parts]
    total = sums[0].sum(2, keepdim=True)
    total = total.masked_fill(total == 0, 1.0)
    return torch.stack([(part / total).sum(1) for part in sums])


def _check(
    queries: Tensor, keys: Tensor, index: Tensor | None, dead: Tensor | None, edge: int | None
) -> None:
    if queries.ndim != 3 or keys.ndim != 4 or (len(keys), keys.shape[3]) != (len(queries), queries.shape[2]):
        raise ValueError(
            f"queries (Hkv, M, W) and keys (Hkv, N, L, W) do not fit: {tuple(queries.shape)}, {tuple(keys.shape)}"
        )
    if keys.shape[3] > 1 and (keys.stride(3) != 1 or queries.stride(2) != 1):
        raise ValueError(f"the last dim must be contiguous, got {queries.stride()} and {keys.stride()}")
    if index is not None and (index.ndim != 2 or len(index) != len(keys) or not index.is_contiguous()):
        raise ValueError(f"index: expected ({len(keys)}, C), contiguous, got {tuple(index.shape)}")
    shape = (len(keys), keys.shape[1] if index is None else index.shape[1], keys.shape[2])
    if dead is not None and (dead.shape != shape or dead.dtype != torch.bool or not dead.is_contiguous()):
        raise ValueError(f"dead: expected {shape} bool, contiguous, got {tuple(dead.shape)} {dead.dtype}")
    if edge is not None and not 1 <= edge <= keys.shape[2]:
        raise ValueError(f"edge: expected 1 to {keys.shape[2]} keys, got {edge}")

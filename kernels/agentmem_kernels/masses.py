"""How much of the queries' attention each block would get, if these blocks were all there is.

Each query row is a softmax distribution over all keys of all blocks; rows are added up, and so are the keys of a
block. With one key per block, its digest, that is the score by digests of a coarse stage; with a block's real
keys its share of the exponentiated log-sum-exp of q.k, the exact second stage. Knows no rule and no log.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from agentmem_kernels import on_cpu
from agentmem_kernels.backends import Backend, BackendError, accelerated, first_that_runs, native
from agentmem_kernels.scratch import Scratch

WIDEST = 256
"""Vectors wider than this go to torch on "auto": two tiles of them would not fit a GPU's shared memory."""


def block_masses(
    queries: Tensor,
    keys: Tensor | Sequence[Tensor],
    *,
    index: Tensor | None = None,
    dead: Tensor | None = None,
    edge: int | None = None,
    seen: Tensor | None = None,
    scaling: float = 1.0,
    scratch: Scratch | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Attention mass of blocks, summed over query rows.

    Args:
        queries: (Hkv, M, W); rounded to the keys' dtype before the product.
        keys: (Hkv, N, L, W), L keys a block; the last dim is contiguous. Or parts (Hkv, n_i, L, W) which are N blocks
            together, at least one.
        index: (Hkv, C) int64, which blocks per head, contiguous, each in [0, N), which is not checked on a GPU;
            None: all N, and C is N.
        dead: (Hkv, C, L) bool, contiguous, keys that count for nothing.
        edge: if given, also the mass of each block's first and last so many keys.
        seen: (M,) int64, contiguous; row m sees only the first so many keys of all blocks, one after another.
        scaling: times q.k is a logit.
        scratch: where intermediate results may lie; new memory if not given.
        backend: see :mod:`.backends`.

    Returns:
        (1, Hkv, C) fp32, or with ``edge`` (3, Hkv, C): whole, first keys, last keys. A row adds up to 1 over
        the living keys; where none lives, to 0.

    Raises:
        ValueError: shapes do not fit.
        BackendError: the backend asked for cannot run.
    """
    parts = [keys] if isinstance(keys, Tensor) else list(keys)
    _check(queries, parts, index, dead, edge)
    _check_seen(queries, seen, backend)
    Hkv, M, W = queries.shape
    C = sum(part.shape[1] for part in parts) if index is None else index.shape[1]
    if not (Hkv and M and C and parts[0].shape[2]):
        return torch.zeros(1 if edge is None else 3, Hkv, C, device=queries.device)
    if index is None and native(*parts, fits=on_cpu.fits(W), backend=backend):
        return on_cpu.block_masses(
            queries, parts, dead=dead, edge=edge, seen=seen, scaling=scaling, scratch=scratch
        )
    whole = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def by_triton() -> Tensor:
        from agentmem_kernels.on_triton import masses  # noqa: PLC0415  # only where Triton runs

        return masses.block_masses(queries * scaling, whole, index, dead, edge)

    def plain() -> Tensor:
        return _plain(queries, whole, index, dead, edge, seen, scaling)

    if (W > WIDEST and backend == "auto") or seen is not None:
        return plain()
    return first_that_runs("block_masses", queries, backend, by_triton, plain)


def in_one_kernel(queries: Tensor, *keys: Tensor) -> bool:
    """Whether :func:`block_masses` keeps no logits in memory for these; then it is the fastest way to them."""
    return accelerated(queries) or native(*keys, fits=on_cpu.fits(queries.shape[-1]))


def _plain(
    queries: Tensor,
    keys: Tensor,
    index: Tensor | None,
    dead: Tensor | None,
    edge: int | None,
    seen: Tensor | None,
    scaling: float,
) -> Tensor:
    """Torch's operations: products in the keys' dtype, everything behind them in fp32."""
    Hkv, M, W = queries.shape
    L = keys.shape[2]
    if index is not None:
        keys = keys.gather(1, index[..., None, None].expand(*index.shape, L, W))
    rows = keys.reshape(Hkv, -1, W)
    products = torch.bmm(queries.to(keys.dtype), rows.transpose(1, 2)).float()
    if seen is not None:
        beyond = torch.arange(products.shape[2], device=seen.device) >= seen[:, None]
        products = products.masked_fill(beyond, -torch.inf)
    logits = products.mul_(scaling).view(Hkv, M, -1, L)
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
    queries: Tensor, parts: Sequence[Tensor], index: Tensor | None, dead: Tensor | None, edge: int | None
) -> None:
    if not parts or (index is not None and len(parts) > 1):
        raise ValueError(f"keys: expected one tensor, or parts and no index, got {len(parts)} parts")
    for keys in parts:
        _check_keys(queries, keys, parts[0].shape[2] if parts[0].ndim == 4 else 0)
    if index is not None and (index.ndim != 2 or len(index) != len(queries) or not index.is_contiguous()):
        raise ValueError(f"index: expected ({len(queries)}, C), contiguous, got {tuple(index.shape)}")
    count = sum(part.shape[1] for part in parts) if index is None else index.shape[1]
    shape = (len(queries), count, parts[0].shape[2])
    if dead is not None and (dead.shape != shape or dead.dtype != torch.bool or not dead.is_contiguous()):
        raise ValueError(f"dead: expected {shape} bool, contiguous, got {tuple(dead.shape)} {dead.dtype}")
    if edge is not None and not 1 <= edge <= shape[2]:
        raise ValueError(f"edge: expected 1 to {shape[2]} keys, got {edge}")


def _check_seen(queries: Tensor, seen: Tensor | None, backend: Backend) -> None:
    if seen is None:
        return
    if backend == "triton":
        raise BackendError("block_masses with seen is not written in Triton; use backend='auto'")
    if seen.shape != queries.shape[1:2] or seen.dtype != torch.int64 or not seen.is_contiguous():
        raise ValueError(
            f"seen: expected ({queries.shape[1]},) int64, contiguous, got {tuple(seen.shape)} {seen.dtype}"
        )


def _check_keys(queries: Tensor, keys: Tensor, per_block: int) -> None:
    fit = queries.ndim == 3 and keys.ndim == 4 and keys.shape[2] == per_block
    if not fit or (len(keys), keys.shape[3]) != (len(queries), queries.shape[2]):
        raise ValueError(
            f"queries (Hkv, M, W) and keys (Hkv, N, L, W) do not fit: {tuple(queries.shape)}, {tuple(keys.shape)}"
        )
    if keys.shape[3] > 1 and (keys.stride(3) != 1 or queries.stride(2) != 1):
        raise ValueError(f"the last dim must be contiguous, got {queries.stride()} and {keys.stride()}")

"""How much attention each recalled block received: softmax mass, measured while attention runs.

A *share* is a block's part of all the mass that went to recalled tokens, added up over layers, heads
and the sampled query tokens. Sinks and window are left out of the division, so shares sum to 1;
``recalled_mass`` says what part of all attention went to recalled tokens at all. Knows no text.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem_kernels import block_masses, in_one_kernel
from agentmem_kernels.scratch import Scratch


class Shares:
    """Adds up attention mass per block over one turn."""

    def __init__(self) -> None:
        self._mass: dict[int, float] = {}
        self._rows = 0

    def add(self, chosen: Tensor, mass: Tensor, rows: int) -> None:
        """Add the mass (Hkv, K) that blocks ``chosen`` (Hkv, K) received from ``rows`` query rows."""
        ids, where = torch.unique(chosen.cpu(), return_inverse=True)
        totals = torch.zeros(len(ids), dtype=torch.float64)
        totals.index_add_(0, where.flatten(), mass.double().cpu().flatten())
        for block, total in zip(ids.tolist(), totals.tolist(), strict=True):
            self._mass[block] = self._mass.get(block, 0.0) + total
        self._rows += rows

    @property
    def recalled_mass(self) -> float:
        """Part of all sampled attention that went to recalled tokens, 0 to 1."""
        return sum(self._mass.values()) / self._rows if self._rows else 0.0

    def top(self, limit: int) -> list[tuple[int, float]]:
        """The blocks with the largest shares, largest first; equal ones newest first."""
        total = sum(self._mass.values())
        if not total:
            return []
        best = sorted(self._mass.items(), key=lambda item: (-item[1], -item[0]))[:limit]
        return [(block, mass / total) for block, mass in best]


def block_mass(
    queries_rot: Tensor,
    keys_rot: Tensor,
    recalled: slice,
    num_blocks: int,
    *,
    scaling: float,
    softcap: float | None,
    sinks: Tensor | None,
    mask: Tensor | None,
    causal: bool = False,
    scratch: Scratch | None = None,
) -> tuple[Tensor, int]:
    """Softmax mass that each recalled block gets, in fp32.

    Args:
        queries_rot: (Hq, T, D), the sampled queries.
        keys_rot: (Hkv, S, D), all that attention saw.
        recalled: where in S the K*L recalled tokens lie.
        num_blocks: K.
        scaling: factor on q.k.
        softcap: cap of the logits, as in Gemma 2.
        sinks: (Hq,) extra logits that take probability, as in gpt-oss.
        mask: additive, (T, S) or (Hq, T or 1, S).
        causal: whether the mask hides nothing but what comes after each query, the last being the last key's.
        scratch: where intermediate results may lie.

    Returns:
        (Hkv, K) mass summed over query rows, and the number of query rows Hq * T.
    """
    Hkv, S, D = keys_rot.shape
    Hq, T, _ = queries_rot.shape
    plain = causal and softcap is None and sinks is None
    if plain and not keys_rot.is_cuda and in_one_kernel(queries_rot, keys_rot):
        rows = queries_rot.reshape(Hkv, -1, D).float()
        seen = torch.arange(S - T + 1, S + 1).repeat(Hq // Hkv)
        keys = keys_rot[:, :, None]
        mass = block_masses(rows, keys, seen=seen, scaling=scaling, scratch=scratch)[0, :, recalled]
        return mass.view(Hkv, num_blocks, -1).sum(-1), Hq * T
    grouped = queries_rot.float().view(Hkv, Hq // Hkv, T, D)
    logits = torch.einsum("hgtd,hsd->hgts", grouped, keys_rot.float()) * scaling
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    if mask is not None:  # (T, S) or (Hq, 1 or T, S)
        logits = logits + (mask if mask.dim() == 2 else mask.view(Hkv, Hq // Hkv, *mask.shape[1:]))
    if sinks is not None:
        column = sinks.float().view(Hkv, Hq // Hkv, 1, 1).expand(-1, -1, T, 1)
        logits = torch.cat([logits, column], dim=-1)
    received = logits.softmax(-1)[..., recalled].sum(dim=(1, 2))  # (Hkv, K*L)
    return received.view(Hkv, num_blocks, -1).sum(-1), Hq * T

"""The two-stage rule's choices stay what they were when its figures were taken."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from agentmem.memory.selectors import TwoStage, top_blocks
from agentmem_kernels import backends
from support.key_blocks import KeyBlocks, random_case

GOLDEN = [
    (0, 96, 5, False, [[3, 10, 40, 44, 87], [17, 24, 64, 77, 89]]),
    (
        1,
        300,
        8,
        False,
        [[8, 103, 118, 177, 191, 204, 262, 293], [34, 134, 152, 179, 196, 212, 285, 291]],
    ),
    (2, 20, 6, False, [[2, 6, 12, 13, 14, 17], [0, 4, 5, 7, 14, 16]]),
    (3, 96, 5, True, [[3, 5, 17, 20, 69], [40, 41, 67, 81, 94]]),
    (4, 200, 3, True, [[89, 94, 121], [31, 80, 86]]),
]
"""Seed, blocks, places, with forgotten tokens; the blocks chosen per head."""


@pytest.mark.parametrize(("seed", "N", "K", "dead", "wanted"), GOLDEN)
def test_choices_are_the_recorded_ones(
    seed: int, N: int, K: int, dead: bool, wanted: list[list[int]]
) -> None:
    """No score lies within a thousandth of the last place, so that other processors choose alike."""
    queries, keys_raw, flags = random_case(seed, N, dead=dead)

    assert wanted == TwoStage().choose(queries, KeyBlocks(keys_raw, TwoStage(), flags), K).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seed", range(12))
def test_choices_are_those_of_the_first_statement_bit_for_bit(
    seed: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule as it was first written, without reused memory, in torch's operations: the same digests and choices."""
    monkeypatch.setattr(backends, "_AUTO", "torch")  # compiled kernels round no logits to bfloat16
    for N, K, dead in ((40, 9, False), (400, 6, False), (400, 6, True), (90, 30, True)):
        queries, keys_raw, flags = random_case(seed, N, dead=dead, dtype=dtype)
        blocks = KeyBlocks(keys_raw, TwoStage(), flags)
        digests = _first_digest(keys_raw, None if flags is None else ~flags)

        assert torch.equal(digests, torch.cat(list(blocks.digests()), dim=1)[:, :, 0])
        parts = [part[:, :, 0] for part in blocks.digests()]
        assert torch.equal(
            _first_choice(queries, keys_raw, flags, parts, K), TwoStage().choose(queries, blocks, K)
        )


def _first_digest(keys_raw: Tensor, alive: Tensor | None) -> Tensor:
    if alive is None:
        return (keys_raw.float().sum(2) / keys_raw.shape[2]).to(keys_raw.dtype)
    total = (keys_raw.float() * alive[None, :, :, None]).sum(2)
    return (total / alive.sum(-1).clamp(min=1)[None, :, None]).to(keys_raw.dtype)


def _first_choice(
    queries: Tensor, keys_raw: Tensor, dead: Tensor | None, parts: Sequence[Tensor], K: int
) -> Tensor:
    Hkv, M, _ = queries.shape
    N = keys_raw.shape[1]
    alive = None if dead is None else ~dead.all(-1)
    candidates = torch.arange(N).expand(Hkv, -1)
    if 4 * K < N:
        narrow = queries.to(keys_raw.dtype)
        logits = torch.cat([torch.bmm(narrow, part.transpose(1, 2)).float() for part in parts], dim=-1)
        candidates = top_blocks(_first_votes(logits, alive), 4 * K)
    keys = torch.stack([keys_raw[head, row] for head, row in enumerate(candidates)])
    C, L = keys.shape[1:3]
    logits = torch.bmm(queries.to(keys.dtype), keys.reshape(Hkv, C * L, -1).transpose(1, 2)).float()
    logits = logits.view(Hkv, M, C, L)
    if dead is not None:
        logits = logits.masked_fill(dead[candidates][:, None], -torch.inf)
    votes = _first_votes(logits.logsumexp(-1), None if alive is None else alive[candidates])
    return candidates.gather(1, top_blocks(votes, K))


def _first_votes(logits: Tensor, alive: Tensor | None) -> Tensor:
    if alive is None:
        return logits.softmax(-1).sum(1)
    living = alive if alive.dim() == 2 else alive.expand(logits.shape[0], -1)
    votes = logits.masked_fill(~living[:, None], -torch.inf).softmax(-1).sum(1)
    return votes.masked_fill(~living, -1.0)

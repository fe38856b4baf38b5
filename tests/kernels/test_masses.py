"""Blocks get the mass, and the places, that the specification gives them, by torch and by Triton."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from agentmem_kernels import best_blocks, block_masses, reference, sort_keys

# (Hkv, M, N, L, W): digests (L = 1) and blocks, more tiles than one program takes, sizes that divide nothing
SHAPES = [
    (2, 7, 37, 1, 24),
    (2, 112, 65, 1, 64),
    (1, 17, 1100, 1, 16),
    (2, 119, 9, 32, 64),
    (3, 70, 21, 5, 16),
    (1, 1, 1, 1, 8),
    (1, 3, 4, 80, 80),
]
# bf16 and fp16: torch's path rounds products, whose largest here is about 40
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 0.1, torch.float16: 2e-2}


def _tensors(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    Hkv, M, N, L, W = shape
    generator = torch.Generator().manual_seed(N)
    queries = torch.randn(Hkv, M, W, generator=generator).to(dtype).float()
    return queries, torch.randn(Hkv, N, L, W, generator=generator).to(dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("case", ["plain", "dead", "all"])
def test_masses_equal_the_reference(
    device: str, backend: str, shape: tuple[int, ...], dtype: torch.dtype, case: str
) -> None:
    """Dead keys, edges and chosen blocks, alone and together; Triton rounds no product, so it is nearer."""
    Hkv, _, N, L, _ = shape
    queries, keys = _tensors(shape, dtype)
    generator = torch.Generator().manual_seed(3)
    index = torch.randint(0, N, (Hkv, 13), generator=generator) if case == "all" else None
    C = N if index is None else 13
    dead = torch.rand(Hkv, C, L, generator=generator) < 0.2 if case in {"dead", "all"} else None
    edge = max(1, L // 4) if case in {"plain", "all"} else None
    expected = reference.block_masses(queries, keys, index=index, dead=dead, edge=edge)

    there = [None if one is None else one.to(device) for one in (index, dead)]
    found = block_masses(
        queries.to(device),
        keys.to(device),
        index=there[0],
        dead=there[1],
        edge=edge,
        backend=backend,
    )

    assert found.dtype == torch.float32 and found.shape == expected.shape
    tolerance = TOLERANCE[dtype] if backend == "torch" else 1e-4
    assert torch.allclose(found.cpu(), expected, atol=tolerance, rtol=tolerance)


def test_equal_inputs_give_equal_bits(device: str) -> None:
    """Twice the same call, and with keys elsewhere in a larger slab: not one bit differs."""
    queries, keys = (x.to(device) for x in _tensors((2, 70, 40, 8, 16), torch.float32))
    slab = torch.randn(2, 90, 8, 16, device=device)
    slots = torch.randperm(90, generator=torch.Generator().manual_seed(0))[:40].expand(2, 40)
    slots = slots.contiguous().to(device)
    slab[:, slots[0]] = keys

    once = block_masses(queries, keys, edge=2, backend="triton")
    again = block_masses(queries, keys, edge=2, backend="triton")
    from_slab = block_masses(queries, slab, index=slots, edge=2, backend="triton")

    assert torch.equal(once, again) and torch.equal(once, from_slab)


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_rows_that_see_nothing_give_nothing(device: str, backend: str) -> None:
    """All keys dead: zeros, not NaN; no blocks or no rows: an empty or a zero result."""
    queries, keys = (x.to(device) for x in _tensors((2, 5, 6, 4, 8), torch.float32))
    dead = torch.ones(2, 6, 4, dtype=torch.bool, device=device)

    assert not block_masses(queries, keys, dead=dead, backend=backend).any()
    assert block_masses(queries, keys[:, :0], edge=1, backend=backend).shape == (3, 2, 0)
    assert not block_masses(queries[:, :0], keys, backend=backend).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": torch.zeros(2, 6, 4, 7)}, "do not fit"),
        ({"keys": torch.zeros(2, 6, 8, 4).transpose(2, 3)}, "contiguous"),
        ({"index": torch.zeros(3, 2, dtype=torch.int64)}, "index"),
        ({"dead": torch.zeros(2, 6, 4)}, "dead"),
        ({"dead": torch.zeros(2, 5, 4, dtype=torch.bool)}, "dead"),
        ({"edge": 5}, "edge"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], message: str) -> None:
    """Shapes are checked in front of every path."""
    good: dict[str, object] = {"queries": torch.zeros(2, 3, 8), "keys": torch.zeros(2, 6, 4, 8)}
    with pytest.raises(ValueError, match=message):
        block_masses(**{**good, **change})


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("kind", ["scores", "ranks"])
@pytest.mark.parametrize(("N", "K"), [(1, 1), (9, 0), (9, 9), (300, 16), (2500, 128)])
@pytest.mark.parametrize("forgotten", [False, True])
def test_the_best_blocks_are_chosen(
    device: str, backend: str, kind: str, N: int, K: int, forgotten: bool
) -> None:
    """Many ties, both zeros and -inf: the newest of equals, ascending."""
    generator = torch.Generator().manual_seed(N)
    scores = torch.randn(3, N, generator=generator).round(decimals=1)
    scores[:, N // 2] = -torch.inf
    scores[0, : N // 3] = -0.0
    if kind == "ranks":
        scores = scores.nan_to_num(neginf=-9.0).mul(7).long()
    alive = torch.rand(N, generator=generator) < 0.7 if forgotten else None

    found = best_blocks(
        scores.to(device), K, alive=None if alive is None else alive.to(device), backend=backend
    )

    assert torch.equal(found.cpu(), reference.best_blocks(scores, K, alive=alive))


def test_keys_of_ranks_and_scores_differ_only_by_block(device: str) -> None:
    """No two of a row are equal, and both implementations give the same numbers."""
    scores = torch.tensor([[1.0, -1.0, 0.0, -0.0, float("inf"), float("-inf"), 1e-45, -1e-45]])
    keys = sort_keys(scores.to(device), backend="triton").cpu()

    assert torch.equal(keys, sort_keys(scores, backend="torch"))
    assert keys[0].argsort().tolist() == [5, 1, 7, 2, 3, 6, 0, 4]


def test_more_than_there_are_is_refused() -> None:
    """Nobody can choose ten of nine."""
    with pytest.raises(ValueError, match="0 to 9, got 10"):
        best_blocks(torch.zeros(1, 9), 10)

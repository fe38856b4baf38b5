"""Neighbours across an edge are chosen as the specification chooses them, by torch and by Triton."""

from __future__ import annotations

import pytest
import torch

from agentmem_kernels import best_and_neighbours, reference

# (H, N, C, K, sure): few candidates and all blocks, nothing and everything left to neighbours
SIZES = [
    (2, 300, 64, 16, 12),
    (3, 40, 40, 10, 7),
    (1, 90, 70, 30, 1),
    (2, 25, 9, 9, 4),
    (1, 20, 8, 3, 3),
    (1, 1, 1, 1, 1),
]


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("forgotten", [False, True])
@pytest.mark.parametrize("leaning", [0.375, 0.1])
def test_neighbours_are_chosen_as_specified(
    device: str, backend: str, size: tuple[int, ...], ties: bool, forgotten: bool, leaning: float
) -> None:
    """Runs of neighbouring candidates, masses with many ties, dead blocks: the same blocks, ascending."""
    H, N, C, K, sure = size
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        start = torch.randint(0, N - C + 1, (1,), generator=generator) if seed % 2 else 0
        pool = torch.arange(C) + start if seed % 2 else torch.randperm(N, generator=generator)[:C]
        ids = torch.stack([pool.sort().values] * H)
        masses = torch.rand(3, H, C, generator=generator)
        masses = (masses * 4).round() / 4 if ties else masses
        alive = None
        if forgotten:
            alive = torch.rand(N, generator=generator) < 0.7
            alive[ids[0, torch.randperm(C, generator=generator)[:K]]] = True
        expected = reference.best_and_neighbours(masses, ids, N, K, sure, leaning, alive=alive)

        found = best_and_neighbours(
            masses.to(device),
            ids.to(device),
            N,
            K,
            sure,
            leaning,
            alive=None if alive is None else alive.to(device),
            backend=backend,
        )

        assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masses": torch.zeros(2, 1, 4)}, "masses"),
        ({"ids": torch.zeros(1, 5, dtype=torch.int64)}, "ids"),
        ({"num_best": 5}, "num_best"),
        ({"num_sure": 4}, "num_best"),
        ({"alive": torch.ones(8, dtype=torch.bool)}, "alive"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], message: str) -> None:
    """Shapes and numbers are checked in front of every path."""
    good: dict[str, object] = {
        "masses": torch.zeros(3, 1, 4),
        "ids": torch.arange(4)[None],
        "count": 9,
        "num_best": 3,
        "num_sure": 2,
        "leaning": 0.5,
    }
    with pytest.raises(ValueError, match=message):
        best_and_neighbours(**{**good, **change})

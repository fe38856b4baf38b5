"""Choices by exact mass against slow statements of them; equal budgets."""

from __future__ import annotations

from itertools import combinations, product

import pytest
import torch
from torch import Tensor

from benchmarks.block_study.choosing import (
    Blocks,
    best_split,
    densest,
    first_layers_twice,
    gains,
    shared,
    with_neighbours,
)
from benchmarks.block_study.figures import Measured
from benchmarks.block_study.watching import Looked
from benchmarks.block_study.ways import (
    LONG_SENTENCES,
    MESSAGES,
    SENTENCES,
    SURPRISE,
    TOKENS,
    Scene,
    Way,
    ways,
)
from benchmarks.recall.places import EvidenceError

CPU = torch.device("cpu")
N = 48


def masses(rows: int = 4, seed: int = 0, tokens: int = N) -> Tensor:
    """Rows that add up to 1, uneven."""
    drawn = torch.rand(rows, tokens, generator=torch.Generator().manual_seed(seed)) ** 6
    return drawn / drawn.sum(1, keepdim=True)


def on_grid(size: int, tokens: int = N) -> Blocks:
    """Blocks of one size."""
    return Blocks(range(0, tokens, size), tokens, CPU)


def covered(mass: Tensor, choice: Tensor) -> list[float]:
    """By row."""
    return (mass * choice).sum(1).tolist()


@pytest.mark.parametrize("starts", [[0, 3, 4, 20, 47], list(range(0, N, 8)), [0]])
def test_blocks_add_up(starts: list[int]) -> None:
    """A block's mass is that of its tokens; every token has its block and its place in it."""
    mass, blocks = masses(), Blocks(starts, N, CPU)
    bounds = list(zip(starts, [*starts[1:], N], strict=True))

    assert torch.allclose(blocks.sums(mass), torch.stack([mass[:, a:b].sum(1) for a, b in bounds], 1))
    assert [(int(b), int(o)) for b, o in zip(blocks.of, blocks.offsets, strict=True)] == [
        (number, token - a) for number, (a, b) in enumerate(bounds) for token in range(a, b)
    ]


@pytest.mark.parametrize("starts", [[], [1, 4], [0, 4, 4], [0, 60]])
def test_starts_that_are_no_partition_are_refused(starts: list[int]) -> None:
    """Blocks begin with the first token, ascend, and end within."""
    with pytest.raises(ValueError, match=r"begin with 0|ascend"):
        Blocks(starts, N, CPU)


@pytest.mark.parametrize("places", [1, 3, 5])
def test_on_a_grid_no_choice_covers_more(places: int) -> None:
    """Equal to the best of all choices of as many blocks."""
    mass, blocks = masses(2), on_grid(8)
    sums = blocks.sums(mass)
    best = [max(sum(row[list(one)]) for one in combinations(range(6), places)) for row in sums]

    choice = densest(sums, blocks, 8 * places)

    assert covered(mass, choice) == pytest.approx([float(one) for one in best])
    assert choice.sum(1).tolist() == [8 * places] * 2


@pytest.mark.parametrize("budget", [5, 16, 24])
def test_uneven_blocks_come_close_to_the_best_choice(budget: int) -> None:
    """The budget is spent to the last token, and no choice of whole blocks covers more than a last block besides."""
    starts = [0, 9, 10, 16, 28, 31, 40]
    mass, blocks = masses(3), Blocks(starts, N, CPU)
    sums, sizes = blocks.sums(mass), blocks.sizes.tolist()
    choice = densest(sums, blocks, budget)

    assert choice.sum(1).tolist() == [budget] * 3
    for row, got in zip(sums.tolist(), covered(mass, choice), strict=True):
        best = max(
            sum(part for part, taken in zip(row, flags, strict=True) if taken)
            for flags in product((False, True), repeat=len(starts))
            if sum(size for size, taken in zip(sizes, flags, strict=True) if taken) <= budget
        )
        assert got >= best - max(row)


def test_rows_may_have_budgets_of_their_own() -> None:
    """Each row spends its own, nothing at all included."""
    blocks = on_grid(8)

    choice = densest(blocks.sums(masses()), blocks, torch.tensor([0, 8, 24, 48]))

    assert choice.sum(1).tolist() == [0, 8, 24, 48]


@pytest.mark.parametrize("percent", [0, 10, 20, 30, 60, 100])
def test_neighbours_follow_the_best(percent: int) -> None:
    """The best for all but their part of the places, then blocks beside those, the best one's first, then the next."""
    mass, blocks, places = masses(4, tokens=80), on_grid(4, 80), 7
    choice = with_neighbours(blocks.sums(mass), blocks, 4 * places, percent)

    for row, picked in zip(blocks.sums(mass).tolist(), choice, strict=True):
        order = sorted(range(20), key=lambda block: -row[block])
        chosen = order[: places - places * percent // 100]
        beside = [near for block in chosen for near in (block + 1, block - 1) if 0 <= near < 20]
        fresh = [near for near in dict.fromkeys(beside) if near not in chosen]
        # two neighbours of one block are equal: the newer one first
        wanted = list(dict.fromkeys([*chosen, *fresh, *order]))[:places]
        assert picked.view(20, 4).all(1).nonzero()[:, 0].tolist() == sorted(wanted)
        assert int(picked.sum()) == 4 * places


def test_neighbours_of_uneven_blocks_spend_the_budget() -> None:
    """The densest to 70 % of the budget, the one across that bound whole, then what stands beside the best of them."""
    blocks = Blocks([0, 10, 14, 20, 24, 40], N, CPU)
    mass = torch.zeros(1, N)
    for block, density in enumerate([0.1, 0.5, 0.2, 0.9, 0.3, 0.05]):
        mass[0, blocks.of == block] = density

    picked = with_neighbours(blocks.sums(mass), blocks, 20, 30)[0]

    # 70 % of 20 is 14: block 3 (4 tokens), 1 (4), 4 (16, cut)
    assert picked.nonzero()[:, 0].tolist() == [*range(10, 14), *range(20, 36)]
    picked = with_neighbours(blocks.sums(mass), blocks, 22, 80)[0]
    # 20 % of 22 is 5: blocks 3 (4 tokens) and 1 (4); beside 3 stand 4 (16, cut to 14) and 2
    assert picked.nonzero()[:, 0].tolist() == [*range(10, 14), *range(20, 38)]
    picked = with_neighbours(blocks.sums(mass), blocks, 22, 90)[0]
    # 10 % is 3: block 3 alone, then 4 (16) before the denser 1, then 2 (cut to 2)
    assert picked.nonzero()[:, 0].tolist() == [14, 15, *range(20, 40)]


def test_sets_are_shared_by_sum() -> None:
    """Over the heads of a layer, or over all rows."""
    scores, layers = masses(5), torch.tensor([0, 0, 1, 2, 2])
    first, last = scores[0] + scores[1], scores[3] + scores[4]

    assert torch.allclose(shared(scores, layers), torch.stack([first, first, scores[2], last, last]))
    assert torch.allclose(shared(scores, None), scores.sum(0).expand(5, -1))


@pytest.mark.parametrize("places", [1, 2, 3])
def test_the_best_split_covers_most_of_all_splits(places: int) -> None:
    """Equal to trying every split of the same total over three layers of two heads."""
    blocks, layers = on_grid(12), torch.tensor([0, 0, 1, 1, 2, 2])
    mass = masses(6) * torch.tensor([1.0, 1, 3, 3, 0.5, 0.5])[:, None]
    sums = blocks.sums(mass)
    tops = sums.sort(1, descending=True).values
    best = max(
        sum(float(tops[row, : split[row // 2]].sum()) for row in range(6))
        for split in product(range(5), repeat=3)
        if sum(split) == 3 * places
    )

    split = best_split(gains(sums, layers), 3 * places)
    choice = densest(sums, blocks, (12 * split)[layers])

    assert int(split.sum()) == 3 * places
    assert sum(covered(mass, choice)) == pytest.approx(best)


def test_the_first_two_layers_get_twice_as_much() -> None:
    """The total stays, the rest is even to one place; never more than there is, never less than nothing."""
    assert first_layers_twice(24, 32, 1000)[:2] == [64, 64]
    assert sum(first_layers_twice(24, 32, 1000)) == 24 * 32
    assert set(first_layers_twice(24, 32, 1000)[2:]) == {29, 30}
    assert first_layers_twice(4, 8, 10) == [10, 10, 6, 6]
    assert first_layers_twice(3, 4, 100) == [6, 6, 0]
    assert first_layers_twice(2, 8, 10) == [8, 8]


def scene(others: Tensor | None = None) -> Scene:
    """Four layers of two heads, 192 tokens."""
    starts = [0, 3, 20, 41, 44, 60, 99, 150, 180]
    cuts = {name: Blocks(starts, 192, CPU) for name in (MESSAGES, SENTENCES, LONG_SENTENCES, SURPRISE)}
    grids = {f"grid {size}": on_grid(size, 192) for size in (8, 16, 32, 64, 128)}
    layers = torch.arange(4).repeat_interleave(2)
    return Scene(masses(8, tokens=192), layers, {TOKENS: on_grid(1, 192), **cuts, **grids}, others)


@pytest.mark.parametrize("budget", [32, 64, 128])
@pytest.mark.parametrize("way", ways(16), ids=lambda way: way.name)
def test_every_way_spends_the_same(way: Way, budget: int) -> None:
    """As many tokens in all, and as many in each row where places are not split over layers."""
    here = scene(
        torch.rand(4, 12, generator=torch.Generator().manual_seed(1)).sort(1, descending=True).values
    )
    choice = way(here, budget)

    assert int(choice.sum()) == 8 * budget
    split = way.name.endswith(("twice", "questions' split", "over layers"))
    assert split or choice.sum(1).tolist() == [budget] * 8


def test_another_budget_is_refused() -> None:
    """A way that cannot spend what it is given is an error, not a row of the table."""
    first = ways(16)[0]

    with pytest.raises(ValueError, match=r"chose 1536 tokens of 1600: ways are compared at equal budget"):
        first(scene(), 200)


def test_finer_and_freer_choices_cover_more() -> None:
    """Single tokens above every block, small above large grids, own sets above shared ones, the best split on top."""
    here, budget = scene(), 64
    got = {way.name: float((here.mass * way(here, budget)).sum()) for way in ways(16)}

    assert max(got, key=lambda name: got[name]) == TOKENS
    assert got["grid 8"] > got["grid 16"] > got["grid 32"] > got["grid 64"]
    assert got["grid 16"] > got["grid 16, one set a layer"] > got["grid 16, one set for all layers"]
    assert got["grid 16, best split over layers"] >= got["grid 16"] > got["grid 16, 30 % to neighbours"]


def test_figures_are_those_of_a_plain_count() -> None:
    """Coverage, whole evidence, distinct blocks, and the pages of 32 tokens that a read touches."""
    mass, layers = masses(4, tokens=96), torch.tensor([0, 0, 1, 1])
    choice = torch.zeros(4, 96, dtype=torch.bool)
    for row, (start, stop) in enumerate([(0, 10), (70, 80), (20, 30), (24, 34)]):
        choice[row, start:stop] = True
    look = Looked(mass, choice, layers, torch.tensor([64, 64, 64, 64]))
    measured = Measured(look, 8, 2, [(32, 38), (12, 14)])
    found = measured.figures(choice, on_grid(16, 96))

    assert found.coverage == pytest.approx(sum(covered(mass, choice)) / 4)
    assert found.evidence == (2 / 4 + 1 / 4) / 2
    # blocks of 16: {0} and {4}; {1} and {1, 2}
    assert found.blocks == (2 + 2) / 2
    # pages of the log, 8 tokens earlier: {0} and {2}; {0, 1} and {1}
    page = 2 * 32 * 64 * 2
    assert found.disk_bytes == 5 * page
    assert found.disk_bytes_together == 2 * (2 + 2) * page
    assert Measured(look, 8, 2, []).figures(choice, on_grid(16, 96)).evidence is None
    with pytest.raises(EvidenceError, match=r"evidence \[100, 105\) is not among tokens 8 to 104"):
        Measured(look, 8, 2, [(100, 105)])

"""Chosen blocks against wanted ones: known values, plain statements, and what best and random choices promise."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.recall.evidence_ranks import (
    best_choice,
    hits,
    mean_scores,
    random_choice,
    rank_scores,
    ranked,
)
from support.evidence_oracle import by_mass, discounted_gain, reciprocal_rank

MASS = torch.tensor([[0.1, 0.3, 0.05, 0.3, 0.25], [0.5, 0.0, 0.2, 0.0, 0.3]])


def test_known_figures() -> None:
    """Wanted blocks at ranks 2 and 5 of six, a third one missing."""
    found = rank_scores([7, 1, 9, 4, 2, 8], frozenset({1, 2, 3}))
    gain = (1 / math.log2(3) + 1 / math.log2(6)) / (1 + 1 / math.log2(3) + 0.5)

    assert found == {
        "any": 1.0,
        "all": 0.0,
        "recall@1": 0.0,
        "recall@2": 1 / 3,
        "recall@5": 2 / 3,
        "recall@10": 2 / 3,
        "recall@20": 2 / 3,
        "recall": 2 / 3,
        "ndcg": pytest.approx(gain),
        "mrr": 0.5,
    }


def test_nothing_chosen_finds_nothing() -> None:
    """Every figure is 0, none is undefined."""
    assert set(rank_scores([], frozenset({4})).values()) == {0.0}
    assert best_choice(MASS, None, 0).shape == random_choice(MASS, None, 0, 1).shape == (2, 0)


@given(st.permutations(range(8)), st.integers(0, 8), st.sets(st.integers(0, 9), min_size=1, max_size=4))
def test_figures_are_those_of_the_plain_statement(order: list[int], kept: int, wanted: set[int]) -> None:
    """nDCG and MRR as the oracle states them; recall@k by counting; hits as subset and overlap."""
    order = order[:kept]
    found = rank_scores(order, frozenset(wanted))

    assert found["mrr"] == reciprocal_rank(order, wanted)
    assert found["ndcg"] == pytest.approx(discounted_gain(order, wanted))
    assert found["recall@2"] == len(wanted.intersection(order[:2])) / len(wanted)
    assert hits(order, frozenset(wanted)) == {
        "any": float(not wanted.isdisjoint(order)),
        "all": float(wanted <= set(order)),
    }


def test_the_heaviest_comes_first_and_of_equals_the_newest() -> None:
    """Blocks chosen by several heads count once."""
    chosen = torch.tensor([[0, 1, 3], [1, 2, 3]])

    assert ranked(MASS[0], chosen) == by_mass(MASS[0].tolist(), [0, 1, 3, 2]) == [3, 1, 0, 2]


def test_no_choice_covers_more_than_the_best() -> None:
    """Against every choice of as many living blocks, per head."""
    alive = torch.tensor([True, True, False, True, True])
    mass = MASS * alive
    for num_chosen in (1, 2, 3, 4):
        best = best_choice(mass, alive, num_chosen)
        assert not (best == 2).any()
        for head in range(2):
            most = max(
                float(mass[head, list(blocks)].sum()) for blocks in combinations((0, 1, 3, 4), num_chosen)
            )
            assert float(mass[head, best[head]].sum()) == pytest.approx(most)


def test_random_choices_are_fair_and_the_same_again() -> None:
    """Each living block as often as another, no dead one ever, no block twice; one seed, one choice."""
    alive = torch.tensor([True, False, True, True, True])
    draws = torch.stack([random_choice(MASS, alive, 2, seed) for seed in range(2000)])
    counts = torch.bincount(draws.flatten(), minlength=5) / (2000 * 2)

    assert torch.equal(draws[5], random_choice(MASS, alive, 2, 5))
    assert bool((draws[..., 0] < draws[..., 1]).all())
    assert counts[1] == 0
    assert torch.allclose(counts[[0, 2, 3, 4]], torch.full((4,), 0.5), atol=0.05)


def test_means_are_over_the_rows_that_have_a_figure() -> None:
    """A question without evidence has no hits, and does not count as a miss."""
    assert mean_scores([{"a": 1.0, "b": 0.5}, {"a": 0.0}]) == {"a": 0.5, "b": 0.5}
    assert mean_scores([]) == {}

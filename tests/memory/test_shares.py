"""Shares: softmax mass per recalled block, added up over layers, heads and sampled tokens."""

from __future__ import annotations

import math

import pytest
import torch

from agentmem.memory.shares import Shares, block_mass


def test_mass_is_the_softmax_over_everything_seen() -> None:
    """Two KV heads, two queries each: compared with each softmax written out."""
    generator = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(4, 3, 8, generator=generator), torch.randn(2, 11, 8, generator=generator)
    mask = torch.zeros(3, 11).masked_fill_(torch.ones(3, 11, dtype=torch.bool).triu(9), float("-inf"))
    sinks = torch.randn(4, generator=generator)
    mass, rows = block_mass(queries, keys, slice(2, 8), 3, scaling=0.3, softcap=2.0, sinks=sinks, mask=mask)
    wanted = torch.zeros(2, 3)
    for head in range(4):
        for t in range(3):
            logits = [
                2.0 * math.tanh(float(queries[head, t] @ keys[head // 2, s]) * 0.3 / 2.0) for s in range(11)
            ]
            weights = [math.exp(x + float(mask[t, s])) for s, x in enumerate(logits)]
            total = sum(weights) + math.exp(float(sinks[head]))
            for block in range(3):
                wanted[head // 2, block] += sum(weights[2 + 2 * block : 4 + 2 * block]) / total

    assert rows == 12
    assert torch.allclose(mass, wanted, atol=1e-5)


def test_forgotten_tokens_of_a_block_take_no_mass() -> None:
    """A mask per query head hides them; the rest of the block keeps its own."""
    keys = torch.zeros(1, 6, 4)
    mask = torch.zeros(2, 1, 6)
    mask[:, :, 2] = float("-inf")
    mass, _ = block_mass(
        torch.zeros(2, 1, 4), keys, slice(1, 5), 2, scaling=1.0, softcap=None, sinks=None, mask=mask
    )

    assert mass[0].tolist() == pytest.approx([2 / 5, 4 / 5])


def test_shares_are_parts_of_what_went_to_recalled_tokens() -> None:
    """Heads that chose the same block add up; shares sum to one; the mass is a part of all attention."""
    shares = Shares()
    shares.add(torch.tensor([[3, 5], [3, 9]]), torch.tensor([[1.0, 0.5], [2.0, 0.5]]), 8)
    shares.add(torch.tensor([[5, 9]]), torch.tensor([[1.0, 0.0]]), 8)

    assert shares.recalled_mass == pytest.approx(5.0 / 16)
    assert shares.top(10) == [(3, pytest.approx(0.6)), (5, pytest.approx(0.3)), (9, pytest.approx(0.1))]
    assert shares.top(1) == [(3, pytest.approx(0.6))]


def test_equal_shares_are_told_newest_first() -> None:
    """So that a receipt does not depend on chance."""
    shares = Shares()
    shares.add(torch.tensor([[7, 2, 4]]), torch.full((1, 3), 0.25), 1)

    assert [block for block, _ in shares.top(3)] == [7, 4, 2]


def test_without_recall_there_are_no_shares() -> None:
    """Empty, and no division by zero; the same when recalled tokens got nothing."""
    assert Shares().top(5) == []
    assert Shares().recalled_mass == 0.0
    nothing = Shares()
    nothing.add(torch.tensor([[1]]), torch.zeros(1, 1), 4)
    assert nothing.top(5) == []
    assert nothing.recalled_mass == 0.0

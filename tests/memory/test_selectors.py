"""Selection rules against independent statements of their formulas."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from agentmem.errors import ConfigError
from agentmem.memory.selectors import SELECTORS, TwoStage, make_selector, top_blocks


class KeyBlocks:
    """A BlockView over plain tensors: keys (Hkv, N, L, D), dead (N, L) bool or None."""

    def __init__(self, keys_raw: Tensor, digests: Tensor, dead: Tensor | None = None) -> None:
        self._keys_raw, self._digests, self._dead = keys_raw, digests, dead
        self.asked: list[int] = []

    layer = 0

    @property
    def count(self) -> int:
        """N."""
        return self._keys_raw.shape[1]

    @property
    def alive(self) -> Tensor | None:
        """Blocks with a living token."""
        return None if self._dead is None else ~self._dead.all(-1)

    def digests(self) -> Sequence[Tensor]:
        """In two parts, as a store would map them."""
        half = max(1, self.count // 2)
        return [part for part in (self._digests[:, :half], self._digests[:, half:]) if part.shape[1]]

    def keys_raw(self, blocks: Tensor) -> Tensor:
        """Keys of chosen blocks."""
        self.asked.append(blocks.shape[1])
        return torch.stack([self._keys_raw[head, row] for head, row in enumerate(blocks)])

    def room(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """New memory, full of what must not be read."""
        return torch.full(tuple(shape), torch.nan, dtype=dtype)

    def dead_tokens(self, blocks: Tensor) -> Tensor | None:
        """Flags of chosen blocks."""
        return None if self._dead is None else self._dead[blocks]


def exact_choice(queries: Tensor, keys_raw: Tensor, count: int) -> Tensor:
    """The slow, obvious rule: softmax over blocks of log-sum-exp of q.k, summed over query rows."""
    rows = []
    for head in range(len(keys_raw)):
        score = torch.zeros(keys_raw.shape[1])
        for query in queries[head]:
            mass = torch.stack([torch.logsumexp(block @ query, 0) for block in keys_raw[head]])
            score += mass.softmax(0)
        rows.append(score.argsort(descending=True)[:count].sort().values)
    return torch.stack(rows)


def make_blocks(N: int, seed: int = 0, dead: Tensor | None = None) -> tuple[Tensor, Tensor, KeyBlocks]:
    """Random queries (2, 6, 16), keys (2, N, 8, 16) and their view."""
    generator = torch.Generator().manual_seed(seed)
    keys_raw = torch.randn(2, N, 8, 16, generator=generator)
    queries = torch.randn(2, 6, 16, generator=generator)
    if dead is not None:
        keys_raw[:, dead] = 0
    digests = TwoStage().digest(keys_raw, None if dead is None else ~dead)
    return queries, keys_raw, KeyBlocks(keys_raw, digests, dead)


@pytest.mark.parametrize("seed", range(5))
def test_with_all_blocks_as_candidates_two_stage_is_the_exact_rule(seed: int) -> None:
    """When candidates cover every block only the exact stage decides."""
    queries, keys_raw, blocks = make_blocks(12, seed)

    assert torch.equal(exact_choice(queries, keys_raw, 4), TwoStage().choose(queries, blocks, 4))


def test_only_candidates_are_read() -> None:
    """The exact stage reads four times as many blocks as are chosen, however many there are."""
    queries, _, blocks = make_blocks(200)

    chosen = TwoStage().choose(queries, blocks, 4)

    assert [16] == blocks.asked
    assert (2, 4) == tuple(chosen.shape)
    assert torch.equal(chosen, chosen.sort(dim=1).values)


@pytest.mark.parametrize("name", sorted(SELECTORS))
def test_a_planted_block_is_found_per_head(name: str) -> None:
    """A block whose keys answer the query is chosen by the head that has it."""
    queries, keys_raw, _ = make_blocks(64)
    keys_raw[0, 11] += queries[0].mean(0) * 6
    keys_raw[1, 50] += queries[1].mean(0) * 6
    selector = make_selector(name)
    blocks = KeyBlocks(keys_raw, selector.digest(keys_raw, None))

    chosen = selector.choose(queries, blocks, 3)

    assert 11 in chosen[0]
    assert 50 in chosen[1]


@pytest.mark.parametrize("name", sorted(SELECTORS))
def test_dead_blocks_are_never_chosen(name: str) -> None:
    """However well its keys fit, a forgotten block stays out; half-dead ones count living tokens only."""
    dead = torch.zeros(40, 8, dtype=torch.bool)
    dead[5], dead[6, 4:] = True, True
    queries, keys_raw, _ = make_blocks(40, dead=dead)
    keys_raw[:, 6, 4:] = queries.mean(1)[:, None] * 50
    selector = make_selector(name)
    blocks = KeyBlocks(keys_raw, selector.digest(keys_raw, ~dead), dead)

    for count in (3, 39):
        chosen = selector.choose(queries, blocks, count)
        assert (2, count) == tuple(chosen.shape)
        assert 5 not in chosen
    assert 6 not in selector.choose(queries, blocks, 3)


def test_the_mean_digest_leaves_forgotten_tokens_out() -> None:
    """Mean over living keys; zeros when none lives."""
    keys_raw = torch.randn(2, 3, 4, 16)
    alive = torch.tensor([[True] * 4, [True, False, False, True], [False] * 4])

    digest = TwoStage().digest(keys_raw, alive)

    torch.testing.assert_close(keys_raw[:, 0].mean(1), digest[:, 0, 0])
    torch.testing.assert_close(keys_raw[:, 1, [0, 3]].mean(1), digest[:, 1, 0])
    assert not digest[:, 2].any()


def test_ties_go_to_the_newest_block() -> None:
    """Equal scores must not be broken by chance, or a resumed agent would differ."""
    scores = torch.tensor([[1.0, 3.0, 1.0, 1.0, 0.0], [2.0, 2.0, 2.0, 2.0, 2.0]])

    assert [[1, 2, 3], [2, 3, 4]] == top_blocks(scores, 3).tolist()


def test_asking_for_all_blocks_gives_all() -> None:
    """No more can be chosen than there are."""
    assert [[0, 1]] == top_blocks(torch.tensor([[0.5, 0.1]]), 5).tolist()


def test_an_unknown_rule_is_refused_with_the_known_ones() -> None:
    """The message names what there is."""
    with pytest.raises(ConfigError, match="two-stage"):
        make_selector("psychic")

"""What every registered selection rule must keep to, and the registry itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from agentmem.config import MemoryConfig
from agentmem.errors import ConfigError
from agentmem.memory.selectors import SELECTORS, make_selector, top_blocks
from agentmem.memory.selectors.edges import AcrossEdges
from agentmem.memory.selectors.two_stage import TwoStage
from support.key_blocks import KeyBlocks, random_case

NAMES = sorted(SELECTORS)
BY_KEYS = [name for name in NAMES if name != "random"]
ONE_SET = {"two-stage-layer", "mean-key-raw", "infllm"}
"""Rules that choose one set of blocks for all heads of a layer."""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dead", [False, True])
def test_a_choice_is_k_different_living_blocks_in_order(name: str, dead: bool) -> None:
    """For every K from one to all that live; forgotten blocks stay out, however many are asked for."""
    queries, keys_raw, flags = random_case(3, 46, dead=dead)
    selector = make_selector(name)
    blocks = KeyBlocks(keys_raw, selector, flags)
    living = set(range(46)) if flags is None else {b for b in range(46) if not flags[b].all()}

    for count in (1, 2, 3, 7, 10, 20, len(living) - 1, len(living)):
        chosen = selector.choose(queries, blocks, count)
        assert (2, count) == tuple(chosen.shape) and chosen.dtype == torch.int64
        for row in chosen.tolist():
            assert row == sorted(set(row)) and living.issuperset(row)


@pytest.mark.parametrize("name", BY_KEYS)
def test_a_planted_block_is_found(name: str) -> None:
    """A block whose keys answer the query is chosen, per head where heads choose for themselves."""
    queries, keys_raw, _ = random_case(0, 64)
    places = (11, 11) if name in ONE_SET else (11, 50)
    for head, place in enumerate(places):
        keys_raw[head, place] += queries[head].mean(0) * 6
    selector = make_selector(name)

    chosen = selector.choose(queries, KeyBlocks(keys_raw, selector), 3)

    assert all(place in row for place, row in zip(places, chosen.tolist(), strict=True))


@pytest.mark.parametrize("name", BY_KEYS)
def test_equal_blocks_are_chosen_newest_first(name: str) -> None:
    """A tie broken by chance would make a resumed agent differ.

    One query row of small whole numbers, so that equal blocks have equal scores in any order of summing.
    """
    queries, keys_raw, _ = random_case(0, 40)
    queries, keys_raw = queries[:, :1].round().clamp(-2, 2) / 4, keys_raw.round().clamp(-2, 2)
    queries[:] = queries[:1]
    keys_raw[:] = keys_raw[:, :1]
    keys_raw[:, [6, 9]] += queries[:, None] * 4
    selector = make_selector(name)

    chosen = selector.choose(queries, KeyBlocks(keys_raw, selector), 3)

    assert [[6, 9, 39]] * 2 == chosen.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_no_more_keys_are_asked_for_than_was_said(name: str) -> None:
    """Buffers are made for ``candidate_factor`` times K blocks; only the exact rule asks again and again."""
    queries, keys_raw, _ = random_case(1, 200)
    selector = make_selector(name)
    blocks = KeyBlocks(keys_raw, selector)

    selector.choose(queries, blocks, 4)

    assert max(blocks.asked, default=0) <= 4 * selector.candidate_factor
    if name == "exact":
        assert sum(blocks.asked) == 200
    elif name.startswith("two-stage"):
        assert blocks.asked == [4 * selector.candidate_factor]


@pytest.mark.parametrize("name", NAMES)
def test_lent_memory_brings_nothing_over(name: str) -> None:
    """After a larger and a smaller selection in the same memory the choice is the same."""
    queries, keys_raw, flags = random_case(2, 60, dead=True)
    selector = make_selector(name)
    blocks = KeyBlocks(keys_raw, selector, flags)
    first = selector.choose(queries, blocks, 5)

    selector.choose(queries.repeat(1, 3, 1), blocks, 9)
    selector.choose(queries[:, :1], blocks, 1)

    assert torch.equal(first, selector.choose(queries, blocks, 5))


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_chooses_too(name: str) -> None:
    """Digests are in the keys' dtype; scores are not."""
    queries, keys_raw, flags = random_case(4, 60, dead=True, dtype=torch.bfloat16)
    selector = make_selector(name)
    blocks = KeyBlocks(keys_raw, selector, flags)

    assert {part.dtype for part in blocks.digests()} == {torch.bfloat16}
    assert {part.shape[2] for part in blocks.digests()} == {selector.digest_rows}
    assert (2, 5) == tuple(selector.choose(queries, blocks, 5).shape)


@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("span", [2, 4])
def test_neighbours_that_share_a_digest_are_candidates_together(span: int, dead: bool) -> None:
    """With candidates enough for all, the choice is that of a digest for each; otherwise whole spans are looked at."""
    queries, keys_raw, flags = random_case(6, 48, dead=dead)
    if flags is not None:
        flags[8:12] = True
        keys_raw[:, flags] = 0
    for made in (TwoStage, lambda **given: AcrossEdges(rule=TwoStage(**given))):
        shared, single = made(digest_span=span, candidate_factor=16), made(candidate_factor=16)
        chosen = shared.choose(queries, KeyBlocks(keys_raw, shared, flags), 3)
        assert torch.equal(chosen, single.choose(queries, KeyBlocks(keys_raw, single, flags), 3))

        few = made(digest_span=span, candidate_factor=4)
        blocks = KeyBlocks(keys_raw, few, flags)
        picked = few.choose(queries, blocks, 4)
        assert blocks.asked == [16]
        assert flags is None or not flags[picked].all(-1).any()
    rule = TwoStage(digest_span=span)
    spans = rule.candidates(queries, KeyBlocks(keys_raw, rule), 4).view(2, -1, span) // span
    assert torch.equal(spans, spans[..., :1].expand_as(spans))


def test_ties_go_to_the_newest_block() -> None:
    """Among equal scores; a better one comes before any of them."""
    scores = torch.tensor([[1.0, 3.0, 1.0, 1.0, 0.0], [2.0, 2.0, 2.0, 2.0, 2.0]])

    assert [[1, 2, 3], [2, 3, 4]] == top_blocks(scores, 3).tolist()


def test_asking_for_all_blocks_gives_all() -> None:
    """No more can be chosen than there are."""
    assert [[0, 1]] == top_blocks(torch.tensor([[0.5, 0.1]]), 5).tolist()


@pytest.mark.parametrize("name", NAMES)
def test_a_rule_is_registered_under_its_own_name(name: str) -> None:
    """What a turn's settings record is what makes the same rule again."""
    assert make_selector(name).name == name
    assert make_selector(name) is not make_selector(name)


def test_rules_that_share_a_digest_kind_make_the_same_digests() -> None:
    """Stored digests are taken over by the kind's name alone."""
    _, keys_raw, flags = random_case(5, 20, dead=True)
    assert flags is not None
    by_kind: dict[str, tuple[int, torch.Tensor]] = {}
    for name in NAMES:
        selector = make_selector(name)
        made = (selector.digest_rows, selector.digest(keys_raw, ~flags))
        rows, digest = by_kind.setdefault(selector.digest_kind, made)
        assert (rows, True) == (made[0], torch.equal(digest, made[1]))
    assert {"mean", "min-max", "cuboid-mean", "sub-means-2", "sub-means-4"} <= set(by_kind)


def test_the_default_costs_little() -> None:
    """Digests take at most 3 % of the bytes of the keys and values they stand for."""
    config = MemoryConfig()
    selector = make_selector(config.selector)

    assert next(iter(SELECTORS)) == config.selector
    assert selector.digest_rows / (2 * config.block_tokens * selector.digest_span) <= 0.03


def test_an_unknown_rule_is_refused_with_the_known_ones() -> None:
    """The message names what there is, and what each does, on one line."""
    with pytest.raises(ConfigError, match="psychic") as caught:
        make_selector("psychic")
    for name, rule in SELECTORS.items():
        assert f"{name} ({rule.summary})" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_page_on_selection_lists_every_rule() -> None:
    """In the registry's words and order, with what each rule says of its digests, candidates and queries."""
    page = Path(__file__).parents[2] / "docs" / "SELECTORS.md"
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    wanted = []
    for name, rule in SELECTORS.items():
        made = rule.make()
        facts = (made.digest_rows, made.candidate_factor or "-", made.query_rows)
        wanted.append(f"| `{name}` | {rule.summary} | " + " | ".join(map(str, facts)) + " |")

    assert rows == wanted

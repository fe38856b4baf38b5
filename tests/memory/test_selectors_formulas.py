"""Every registered rule against a slow statement of its formula: one head, one query, one block at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from torch import Tensor

from agentmem.memory.selectors import SELECTORS, make_selector
from agentmem.memory.selectors.box import MinMax
from support.key_blocks import KeyBlocks, random_case

Logit = Callable[[Tensor, Tensor, list[bool]], float]
"""What a query (D,) gives a block of keys (L, D), of which those flagged live."""
Votes = list[list[float]]
"""[head][block]; forgotten blocks are not in it but as -1."""


def living(keys: Tensor, alive: list[bool]) -> Tensor:
    """The keys that live."""
    return torch.stack([key for key, lives in zip(keys, alive, strict=True) if lives])


def mean_logit(query: Tensor, keys: Tensor, alive: list[bool]) -> float:
    """q . mean."""
    found = living(keys, alive)
    return float(query @ (sum(found) / len(found)))


def best_corner(query: Tensor, low: Tensor, high: Tensor) -> float:
    """Sum over channels of max(q low, q high): Quest, algorithm 1."""
    return sum(
        max(one, other) for one, other in zip((query * low).tolist(), (query * high).tolist(), strict=True)
    )


def quest_logit(query: Tensor, keys: Tensor, alive: list[bool]) -> float:
    """The corners are the smallest and largest values."""
    found = living(keys, alive)
    return best_corner(query, found.min(0).values, found.max(0).values)


def arkvale_logit(query: Tensor, keys: Tensor, alive: list[bool]) -> float:
    """The corners are as far from the middle as keys are on average."""
    found = living(keys, alive)
    centre = (found.min(0).values + found.max(0).values) / 2
    far = torch.stack([(key - centre).abs() for key in found]).mean(0)
    return best_corner(query, centre - far, centre + far)


def runs_logit(count: int) -> Logit:
    """The best of ``count`` means; a forgotten run counts as the block's mean."""

    def logit(query: Tensor, keys: Tensor, alive: list[bool]) -> float:
        size = len(keys) // count
        best = []
        for start in range(0, len(keys), size):
            run, flags = keys[start : start + size], alive[start : start + size]
            best.append(mean_logit(query, run, flags) if any(flags) else mean_logit(query, keys, alive))
        return max(best)

    return logit


def mass_logit(query: Tensor, keys: Tensor, alive: list[bool]) -> float:
    """Log of the attention mass of the block."""
    return float(torch.logsumexp(torch.stack([key @ query for key in living(keys, alive)]), 0))


def softmax(logits: Mapping[int, float]) -> dict[int, float]:
    """Shares of blocks."""
    values = torch.tensor(list(logits.values()), dtype=torch.float64).softmax(0)
    return dict(zip(logits, values.tolist(), strict=True))


def sum_of_shares(heads: list[list[dict[int, float]]]) -> list[dict[int, float]]:
    """Per KV head: each query's shares, added up."""
    return [{b: sum(softmax(row)[b] for row in rows) for b in rows[0]} for rows in heads]


def layer_shares(heads: list[list[dict[int, float]]]) -> list[dict[int, float]]:
    """All queries of all heads, each one distribution."""
    rows = [row for head in heads for row in head]
    return sum_of_shares([rows] * len(heads))


def layer_raw(heads: list[list[dict[int, float]]]) -> list[dict[int, float]]:
    """All queries of all heads, as they are."""
    rows = [row for head in heads for row in head]
    return [{b: sum(row[b] for row in rows) for b in rows[0]}] * len(heads)


Vote = Callable[[list[list[dict[int, float]]]], list[dict[int, float]]]
Case = tuple[Tensor, Tensor, Tensor | None]


def scores(case: Case, logit: Logit, vote: Vote, among: Sequence[Sequence[int]]) -> list[dict[int, float]]:
    """Votes per head for the blocks ``among`` which it chooses."""
    queries, keys_raw, dead = case
    heads = []
    for head, ids in enumerate(among):
        size = keys_raw.shape[2]
        alive = {b: [True] * size if dead is None else (~dead[b]).tolist() for b in ids}
        heads.append([{b: logit(query, keys_raw[head, b], alive[b]) for b in ids} for query in queries[head]])
    return vote(heads)


def best(votes: Mapping[int, float], places: int) -> list[int]:
    """The fullest, newest first among equals."""
    return sorted(votes, key=lambda b: (-votes[b], -b))[:places]


def blocks_alive(case: Case) -> list[int]:
    """Blocks with a living token."""
    _, keys_raw, dead = case
    return [b for b in range(keys_raw.shape[1]) if dead is None or not dead[b].all()]


def one_stage(logit: Logit, vote: Vote = sum_of_shares) -> Callable[[Case, int], list[list[int]]]:
    """The K blocks with most votes."""

    def choose(case: Case, K: int) -> list[list[int]]:
        found = scores(case, logit, vote, [blocks_alive(case)] * 2)
        return [sorted(best(votes, K)) for votes in found]

    return choose


def two_stage(
    factor: int = 4, coarse: Logit = mean_logit, vote: Vote = sum_of_shares
) -> Callable[[Case, int], list[list[int]]]:
    """Factor * K blocks by digest, K of those by true mass."""

    def choose(case: Case, K: int) -> list[list[int]]:
        among = [best(votes, factor * K) for votes in scores(case, coarse, vote, [blocks_alive(case)] * 2)]
        return [sorted(best(votes, K)) for votes in scores(case, mass_logit, vote, among)]

    return choose


def candidates(case: Case, K: int, span: int) -> list[list[int]]:
    """The living ones of 4 K blocks, ``span`` neighbours at a time, with most votes by their joint means, per head."""
    queries, keys_raw, dead = case
    joint = keys_raw.reshape(2, -1, span * 8, 16), None if dead is None else dead.reshape(-1, span * 8)
    spans, alive = blocks_alive((queries, *joint)), blocks_alive(case)

    votes = scores((queries, *joint), mean_logit, sum_of_shares, [spans] * 2)
    chosen = [best(head, -(-4 * K // span)) for head in votes]
    return [[b for s in head for b in range(span * s, span * s + span) if b in alive] for head in chosen]


def token_shares(case: Case, head: int, ids: list[int]) -> dict[int, list[float]]:
    """Each query's softmax over all living tokens of some blocks, added up: per block, a share for each token."""
    queries, keys_raw, dead = case
    shares = {b: [0.0] * 8 for b in ids}
    lives = [(b, t) for b in ids for t in range(8) if dead is None or not dead[b, t]]
    for query in queries[head]:
        logits = torch.tensor([float(query @ keys_raw[head, b, t]) for b, t in lives], dtype=torch.float64)
        for (b, t), share in zip(lives, logits.softmax(0).tolist(), strict=True):
            shares[b][t] += share
    return shares


def across_edges(
    leaning: float, percent: int, edge: int = 2, span: int = 1
) -> Callable[[Case, int], list[list[int]]]:
    """A part of the places goes beyond edges whose ``edge`` of 8 tokens hold more than a part of a best block's mass."""

    def choose(case: Case, K: int) -> list[list[int]]:
        alive, chosen = blocks_alive(case), []
        for head, ids in enumerate(candidates(case, K, span)):
            shares = token_shares(case, head, ids)
            order = best({b: sum(shares[b]) for b in ids}, len(ids))
            top = order[: K - K * percent // 100]
            claims: dict[int, float] = {}
            for b in top:
                for beyond, mass in ((b - 1, sum(shares[b][:edge])), (b + 1, sum(shares[b][-edge:]))):
                    if mass > leaning * sum(shares[b]) and beyond in alive and beyond not in top:
                        claims[beyond] = max(mass, claims.get(beyond, 0.0))
            beside = best(claims, len(claims))
            rest = [b for b in order if b not in top and b not in beside]
            chosen.append(sorted((top + beside + rest)[:K]))
        return chosen

    return choose


TWO_STAGE = two_stage()
STATEMENTS: dict[str, Callable[[Case, int], list[list[int]]]] = {
    "two-stage": TWO_STAGE,
    "two-stage-layer": two_stage(vote=layer_shares),
    "two-stage-edges": across_edges(1 / 2, 30),
    "two-stage-pairs": across_edges(0, 20, edge=8, span=2),
    "two-stage-query-1": TWO_STAGE,
    "two-stage-query-64": TWO_STAGE,
    "two-stage-query-512": TWO_STAGE,
    "two-stage-question": TWO_STAGE,
    "mean-key": one_stage(mean_logit),
    "mean-key-raw": one_stage(mean_logit, layer_raw),
    "cuboid-mean": one_stage(arkvale_logit),
    "min-max": one_stage(quest_logit),
    "sub-means-2": one_stage(runs_logit(2)),
    "sub-means-4": one_stage(runs_logit(4)),
    "exact": one_stage(mass_logit),
}


@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("name", STATEMENTS)
def test_choices_are_those_of_the_slow_statement(name: str, dead: bool) -> None:
    """Over random keys, with and without forgotten tokens and blocks, for several K."""
    selector = make_selector(name)
    for seed, N in ((0, 60), (1, 30)):
        case = random_case(seed, N, dead=dead)
        if seed:  # also where attention is spread wide
            case = case[0] / 4, *case[1:]
        blocks = KeyBlocks(case[1], selector, case[2])
        for K in (2, 5, 12, 20):
            assert STATEMENTS[name](case, K) == selector.choose(case[0], blocks, K).tolist()


def test_the_rules_of_one_view_differ() -> None:
    """No two rules that look at keys choose alike everywhere, but those that differ in the queries."""
    choices: dict[str, list[str]] = {}
    for name in STATEMENTS:
        selector = make_selector(name)
        found = []
        for seed in range(4):
            queries, keys_raw, _ = random_case(seed, 300)
            found.append(selector.choose(queries / 2, KeyBlocks(keys_raw, selector), 30).tolist())
        choices.setdefault(str(found), []).append(name)

    alike = [names for names in choices.values() if len(names) > 1]
    assert alike == [[name for name in STATEMENTS if STATEMENTS[name] is TWO_STAGE]]


def test_every_rule_has_a_statement() -> None:
    """But for chance, which has its own below, and for the reference mode, whose oracle plays whole turns."""
    assert set(STATEMENTS) == set(SELECTORS) - {"random", "infllm"}


def test_all_candidates_make_two_stages_exact() -> None:
    """When candidates cover every block only the second stage decides."""
    queries, keys_raw, flags = random_case(6, 40, dead=True)
    exact, two_stages = make_selector("exact"), make_selector("two-stage")

    assert torch.equal(
        exact.choose(queries, KeyBlocks(keys_raw, exact, flags), 10),
        two_stages.choose(queries, KeyBlocks(keys_raw, two_stages, flags), 10),
    )


@pytest.mark.parametrize("dead", [False, True])
def test_the_box_of_all_keys_bounds_every_product(dead: bool) -> None:
    """Quest's score is at least q.k of any living key of the block."""
    queries, keys_raw, flags = random_case(7, 30, dead=dead)
    selector = make_selector("min-max")
    bound = MinMax().logits(queries, KeyBlocks(keys_raw, selector, flags))  # (2, 6, 30)

    products = torch.einsum("hmd,hnld->hmnl", queries, keys_raw)
    if flags is not None:
        products = products.masked_fill(flags, -torch.inf)
    assert bool((bound + 1e-5 >= products.amax(-1)).all())
    assert bool((bound > products.amax(-1) + 0.1).any())


@pytest.mark.parametrize("name", sorted({make_selector(n).digest_kind: n for n in SELECTORS}.values()))
def test_a_digest_depends_on_its_own_block_alone(name: str) -> None:
    """Made with others or by itself, beside forgotten ones or not: the same bits; zeros when none lives."""
    _, keys_raw, flags = random_case(8, 21, dead=True)
    assert flags is not None
    flags[3:6] = False
    make = make_selector(name).digest
    together = make(keys_raw, ~flags)

    for block in range(21):
        one = slice(block, block + 1)
        assert torch.equal(together[:, one], make(keys_raw[:, one], ~flags[one]))
    assert torch.equal(together[:, 3:6], make(keys_raw[:, 3:6], None))
    assert not together[:, ::7].any()


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7])
def test_blocks_of_any_size_are_cut_into_runs(size: int) -> None:
    """Every token is in a run and every run holds one, even when there are more runs than tokens."""
    keys_raw = torch.randn(1, 5, size, 4, generator=torch.Generator().manual_seed(0))
    digest = make_selector("sub-means-4").digest(keys_raw, None)

    assert (1, 5, 4, 4) == tuple(digest.shape)
    bounds = [(row * size // 4, max((row + 1) * size // 4, row * size // 4 + 1)) for row in range(4)]
    assert {token for start, stop in bounds for token in range(start, stop)} == set(range(size))
    for row, (start, stop) in enumerate(bounds):
        torch.testing.assert_close(digest[:, :, row], keys_raw[:, :, start:stop].mean(2))


def draw(layer: int, head: int, count: int, block: int) -> int:
    """The lot of a block, in plain whole numbers."""

    def mixed(x: int) -> int:
        x %= 2**31
        for factor in (0x2C1B3C6D, 0x297A2D39):
            x ^= x >> 15
            x = x * factor % 2**31
        return x ^ (x >> 15)

    return mixed(mixed(mixed(mixed(mixed(head + 1) + layer) + count) + block))


@pytest.mark.parametrize("layer", [0, 5])
def test_chance_is_drawn_by_layer_head_and_count(layer: int) -> None:
    """The K highest lots win; the keys do not matter."""
    selector = make_selector("random")
    for seed, N, K in ((0, 50, 6), (1, 50, 6), (2, 51, 6)):
        queries, keys_raw, flags = random_case(seed, N, dead=seed == 1)
        chosen = selector.choose(queries, KeyBlocks(keys_raw, selector, flags, layer), K)
        for head in range(2):
            lots = {b: float(draw(layer, head, N, b)) for b in blocks_alive((queries, keys_raw, flags))}
            assert sorted(best(lots, K)) == chosen[head].tolist()


def test_chance_is_fair() -> None:
    """Over many layers and lengths every tenth of the blocks is drawn about equally often."""
    selector = make_selector("random")
    queries, tenths, draws = torch.zeros(4, 1, 2), [0] * 10, 0
    for layer in range(40):
        for N in range(100, 110):
            blocks = KeyBlocks(torch.zeros(1, N, 1, 2), selector, None, layer)
            for block in selector.choose(queries, blocks, 8).flatten().tolist():
                tenths[block * 10 // N] += 1
                draws += 1
    assert draws == 12_800
    assert all(abs(count / draws - 0.1) < 0.01 for count in tenths)

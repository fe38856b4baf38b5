"""Evidence of questions asked of a real agent on a tiny model, against an oracle that looks at every token."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from agentmem import AgentMemory, MemoryConfig
from agentmem.memory.blocks import BlockGrid
from agentmem.memory.modes import mode
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import SELECTORS, BlockView
from benchmarks.recall.evidence import EvidenceMeasure, blocks_of
from benchmarks.recall.items import Question
from benchmarks.recall.places import EvidenceError, Ranges
from benchmarks.recall.running import Asked
from benchmarks.recall.watched import WatchedModel
from support.evidence_oracle import block_shares, by_mass, discounted_gain, mean_over_rows, reciprocal_rank
from support.session_agent import log_tensors
from support.tiny_language_model import SMALL, language_model

TEXT = " ".join(f"item {n} lies {n * 7919 % 101} steps behind the {n * 31 % 17}th door," for n in range(7))
QUESTION = Question("q1", "plain", "Which item lies behind the 5th door?", ("7",), ("item",))
OTHER = Question("q2", "plain", "How many steps?", ("7",), ())
CONFIG = SMALL.changed(chunk_tokens=64)
"""A question is one chunk."""
WANTED: Ranges = [(45, 51), (70, 74)]
"""Token ranges that are taken to hold the answer."""


@dataclass(frozen=True)
class Look:
    """What a plain witness notes of one layer."""

    spec: LayerSpec
    queries: Tensor
    chosen: list[list[int]]
    scaling: float


class Notes:
    """A witness that keeps what it is told."""

    def __init__(self) -> None:
        self.looks: list[Look] = []

    def saw(
        self, spec: LayerSpec, queries_raw: Tensor, scaling: float, chosen: Tensor, blocks: BlockView
    ) -> None:
        """Copies: the tensors are the turn's."""
        self.looks.append(Look(spec, queries_raw.clone(), chosen.tolist(), scaling))


def agent_of(
    home: Path, config: MemoryConfig, questions: Sequence[Question] = (QUESTION, OTHER), text: str = TEXT
) -> Asked:
    """An agent that has read the text, closed."""
    model = language_model()
    with AgentMemory.resume("ada", model=model, home=home, config=config) as memory:
        memory.observe(text)
    return Asked(home, "ada", model, config, questions, {"q1": WANTED, "q2": ()})


def noted(asked: Asked, prompt: str) -> tuple[list[Look], list[Tensor]]:
    """What a question's selections were made from and chose, and all raw keys by layer."""
    notes, model = Notes(), WatchedModel(asked.model)
    with AgentMemory.resume("ada", model=model, home=asked.home, config=asked.config) as memory:
        model.witness = notes
        memory.chat(prompt, remember=False, max_new_tokens=1)
        keys = log_tensors(memory._store)[::2]  # the store itself: nothing public shows raw keys
    return notes.looks, keys


def covered(asked: Asked, look: Look, keys: Tensor) -> tuple[list[list[float]], list[float]]:
    """By KV head the mean share of every block, and the coverage of what was chosen."""
    config = asked.config
    ranges = []
    start = config.sink_tokens
    while start + config.block_tokens + config.window_tokens <= keys.shape[1]:
        ranges.append(range(start, start + config.block_tokens))
        start += config.block_tokens
    distance = config.window_tokens - (config.positions != "ordered")
    shares = block_shares(
        look.spec, look.queries, keys, ranges, set(), scaling=look.scaling, distance=distance
    )
    means = [mean_over_rows(rows) for rows in shares]
    return means, [
        sum(mean[block] for block in chosen) for mean, chosen in zip(means, look.chosen, strict=True)
    ]


def test_every_figure_is_that_of_the_plain_statement(tmp_path: Path) -> None:
    """Coverage of chosen and exact per layer and head, hits, ranks per layer and of the union."""
    asked = agent_of(tmp_path, CONFIG, [QUESTION])
    looks, keys = noted(asked, QUESTION.prompt)
    wanted = {4, 5, 7, 8}
    found = EvidenceMeasure()(asked)
    heads = {(row["layer"], row["head"]): row for row in found["heads"]}
    layer_rows = {row["layer"]: row["rules"]["chosen"] for row in found["layers"]}
    layer_means, unions = [], set()
    assert blocks_of(WANTED, BlockGrid(CONFIG.sink_tokens, CONFIG.block_tokens)) == wanted
    assert len(looks) == 2
    for look in looks:
        layer = look.spec.index
        means, coverage = covered(asked, look, keys[layer])
        for head, mean in enumerate(means):
            rules = heads[layer, head]["rules"]
            best = sum(sorted(mean)[-4:])
            chosen = set(look.chosen[head])
            assert rules["chosen"]["coverage"] == pytest.approx(coverage[head], abs=1e-4)
            assert rules["exact"]["coverage"] == pytest.approx(best, abs=1e-4)
            assert rules["chosen"]["any"] == float(not wanted.isdisjoint(chosen))
            assert rules["chosen"]["all"] == float(wanted <= chosen)
            evidence = sum(mean[block] for block in wanted)
            assert heads[layer, head]["wanted"]["mass"] == pytest.approx(evidence, abs=1e-4)
        layer_means.append(mean_over_rows(means))
        chosen = {block for row in look.chosen for block in row}
        unions |= chosen
        order = by_mass(layer_means[-1], chosen)
        assert layer_rows[layer]["mrr"] == pytest.approx(reciprocal_rank(order, wanted), abs=1e-4)
        assert layer_rows[layer]["ndcg"] == pytest.approx(discounted_gain(order, wanted), abs=1e-4)
        assert layer_rows[layer]["recall@2"] == len(wanted.intersection(order[:2])) / 4
    union = found["questions"][0]["rules"]["chosen"]["union"]
    order = by_mass(mean_over_rows(layer_means), unions)
    assert union["mrr"] == pytest.approx(reciprocal_rank(order, wanted), abs=1e-4)
    assert union["ndcg"] == pytest.approx(discounted_gain(order, wanted), abs=1e-4)
    assert union["recall"] == len(wanted & unions) / 4
    assert union["part"] == pytest.approx(len(unions) / len(layer_means[0]), abs=1e-4)


@pytest.mark.parametrize("selector", sorted(SELECTORS))
def test_every_rule_can_be_measured(tmp_path: Path, selector: str) -> None:
    """Coverage by its own choices, never above that of `exact`, the hits beside it; plain JSON."""
    asked = agent_of(tmp_path, CONFIG.changed(selector=selector))
    looks, keys = noted(asked, QUESTION.prompt)
    found = EvidenceMeasure()(asked)
    first, second = found["questions"]
    wanted = [value for look in looks for value in covered(asked, look, keys[look.spec.index])[1]]
    mean = sum(wanted) / len(wanted)

    assert first["rules"]["chosen"]["heads"]["coverage"] == pytest.approx(mean, abs=1e-4)
    assert len(found["heads"]) == 4 and len(found["layers"]) == 2
    for row in found["heads"]:
        assert row["rules"]["exact"]["coverage"] >= row["rules"]["chosen"]["coverage"] - 1e-5
        assert row["rules"]["exact"]["coverage"] >= row["rules"]["random"]["coverage"] - 1e-5
    assert "any" in first["rules"]["chosen"]["heads"]
    assert set(second["rules"]["chosen"]["heads"]) == {"coverage"}
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("name", ["infllm", "streaming", "lm-infinite", "window"])
def test_every_mode_can_be_measured(tmp_path: Path, name: str) -> None:
    """By its own blocks, window and distance; the modes that recall nothing cover nothing."""
    config = mode(name, CONFIG, budget=CONFIG.sink_tokens + 256)
    asked = agent_of(tmp_path, config, [OTHER], text=TEXT * 3)
    looks, keys = noted(asked, OTHER.prompt)
    row = EvidenceMeasure()(asked)["questions"][0]
    wanted = [value for look in looks for value in covered(asked, look, keys[look.spec.index])[1]]

    assert row["chosen"] == config.recall_tokens // config.block_tokens == (name == "infllm")
    assert row["rules"]["chosen"]["heads"]["coverage"] == pytest.approx(sum(wanted) / 4, abs=1e-4)
    assert (sum(wanted) > 0) == (name == "infllm")


def test_measuring_leaves_the_memory_as_it_was(tmp_path: Path) -> None:
    """Bits and length of the log, and the answer; measured twice, the figures are the same."""
    asked = agent_of(tmp_path, CONFIG)
    before = state(asked)
    first = EvidenceMeasure()(asked)

    assert EvidenceMeasure()(asked) == first
    assert state(asked) == before
    assert EvidenceMeasure(seed=1)(asked) != first, "other random blocks"


def test_a_witness_changes_no_logit(tmp_path: Path) -> None:
    """With and without one, the same tokens are likely to the last bit."""
    asked = agent_of(tmp_path, CONFIG)
    seen: list[Tensor] = []

    def note(input_ids: Tensor, scores: Tensor) -> Tensor:
        seen.append(scores.clone())
        return scores

    watched = WatchedModel(asked.model)
    watched.witness = Notes()
    for model in (asked.model, watched):
        with AgentMemory.resume("ada", model=model, home=tmp_path) as memory:
            memory.generate(
                [{"role": "user", "content": QUESTION.prompt}],
                logits_processor=[note],
                remember=False,
                max_new_tokens=3,
            )

    assert watched.witness.looks
    assert len(seen) == 6 and all(torch.equal(seen[n], seen[n + 3]) for n in range(3))


def test_without_recall_nothing_is_covered_and_nothing_found(tmp_path: Path) -> None:
    """Sinks and window alone: every figure of the choice is 0, by each rule at as many blocks."""
    asked = agent_of(tmp_path, CONFIG.changed(recall_tokens=0))
    row = EvidenceMeasure()(asked)["questions"][0]

    assert row["chosen"] == 0 and row["blocks"] > 20
    assert {value for scopes in row["rules"].values() for by in scopes.values() for value in by.values()} == {
        0.0
    }


def test_where_all_is_attended_to_there_are_no_rows(tmp_path: Path) -> None:
    """Nothing is evicted in full attention."""
    asked = agent_of(tmp_path, CONFIG.changed(dense_tokens=900))

    assert EvidenceMeasure()(asked) == {"questions": [], "heads": [], "layers": []}


def test_a_question_of_several_chunks_counts_all_its_tokens(tmp_path: Path) -> None:
    """Coverage is the mean over tokens, not over chunks; hits are those of the choice the reply begins with."""
    question = Question("q1", "plain", QUESTION.prompt, ("7",), ("item",))
    asked = agent_of(tmp_path, SMALL, [question])
    looks, keys = noted(asked, question.prompt)
    rows = {(row["layer"], row["head"]): row for row in EvidenceMeasure()(asked)["heads"]}
    with AgentMemory.resume("ada", model=asked.model, home=tmp_path) as memory:
        memory.chat(question.prompt, max_new_tokens=1)
        longer = log_tensors(memory._store)[::2]
        held = keys[0].shape[1]
    for layer in (0, 1):
        mine = [look for look in looks if look.spec.index == layer]
        total, tokens, past = 0.0, 0, held
        for look in mine:
            _, coverage = covered(asked, look, longer[layer][:, :past])
            total, tokens = total + coverage[0] * look.queries.shape[1], tokens + look.queries.shape[1]
            past += look.queries.shape[1]
        assert len(mine) == 3 and len({look.queries.shape[1] for look in mine}) == 2
        assert rows[layer, 0]["rules"]["chosen"]["coverage"] == pytest.approx(total / tokens, abs=1e-4)
        last = {4, 5, 7, 8}.intersection(mine[-1].chosen[0])
        assert rows[layer, 0]["rules"]["chosen"]["any"] == float(bool(last))


def test_forgotten_tokens_are_neither_chosen_nor_counted(tmp_path: Path) -> None:
    """A block whose tokens are gone gets no mass and is drawn by no rule; the rest still adds up."""
    model = language_model()
    with AgentMemory.resume("ada", model=model, home=tmp_path, config=CONFIG) as memory:
        for part in TEXT.split(","):
            memory.append([{"role": "user", "content": part or "."}])
        states = memory.history()
        memory.forget(turn=states[4].turn)
        dead = memory._store.log.dead
    asked = Asked(tmp_path, "ada", model, CONFIG.changed(recall_tokens=400, dense_tokens=64), [OTHER], {})
    row = EvidenceMeasure()(asked)["questions"][0]

    assert dead and dead[0][1] - dead[0][0] > 2 * CONFIG.block_tokens
    assert row["chosen"] < row["blocks"]
    for rule in ("chosen", "exact", "random"):
        assert row["rules"][rule]["heads"]["coverage"] == pytest.approx(1.0, abs=1e-4)


def test_evidence_in_plain_sight_is_an_error(tmp_path: Path) -> None:
    """In the window when the question is asked, or in the sinks."""
    asked = agent_of(tmp_path, CONFIG, [QUESTION])
    held = state(asked)[0]
    for place in [(held - 4, held - 2), (6, 12)]:
        late = Asked(tmp_path, "ada", asked.model, CONFIG, [QUESTION], {"q1": [place]})
        with pytest.raises(EvidenceError, match=r"out of sight|sinks"):
            EvidenceMeasure()(late)


def state(asked: Asked) -> tuple[int, float, Mapping[str, Any]]:
    """Tokens, a checksum of all K/V, and what is answered."""
    with AgentMemory.resume("ada", model=asked.model, home=asked.home, config=asked.config) as memory:
        tensors = log_tensors(memory._store)
        reply = memory.chat("And?", remember=False, max_new_tokens=6)
        total = math.fsum(float(tensor.double().abs().sum()) for tensor in tensors)
        return memory.tokens_held, total, {"text": reply.text}

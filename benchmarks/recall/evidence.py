"""Evidence before answers: how much of the attention to evicted tokens a choice covers, and whether it holds the answer.

Each question is asked again and forgotten, with a witness in the turn. Per layer and KV head, the mean over the
question's tokens (all that the asking turn reads before the reply, its template tokens included): the softmax mass over
evicted tokens that the chosen blocks cover. From the very same scores, at the same number of blocks, two more rules are
judged: `exact`, the blocks of largest mass, which no choice can exceed, and `random`, drawn without looking. Where the
question has evidence: how often the blocks that hold it are chosen, per head; per layer, with the heads' choices taken
together and ranked by mass, recall@k, nDCG and MRR; and the same for all layers together. Knows no judge and no table.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from agentmem import AgentMemory
from agentmem.memory.blocks import BlockGrid
from agentmem.memory.placements import POSITION_RULES
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import BlockView
from benchmarks.recall.block_mass import mean_block_mass
from benchmarks.recall.evidence_ranks import (
    Scores,
    best_choice,
    hits,
    mean_scores,
    random_choice,
    rank_scores,
    ranked,
)
from benchmarks.recall.held import RULES
from benchmarks.recall.items import Question
from benchmarks.recall.places import EvidenceError, Ranges
from benchmarks.recall.running import Asked
from benchmarks.recall.watched import WatchedModel

DIGITS = 5
"""Decimals kept."""


@dataclass(frozen=True)
class Seen:
    """What was seen of one layer: coverage over all question tokens, the rest of its last selection."""

    mass: Tensor
    """(Hkv, N), mean mass of each block."""
    choices: Mapping[str, Tensor]
    """By rule, (Hkv, K) blocks: what the reply begins with."""
    covered: Mapping[str, Tensor]
    """By rule, (Hkv,) mass of the choices, added up over the question's tokens."""
    tokens: int


class EvidenceWitness:
    """Watches the turn of one question; see :class:`agentmem.memory.witness.Witness`.

    Args:
        distance: tokens between a query and all keys when blocks are scored, as its rule of positions says.
        wanted: blocks that hold the answer; empty where there is no evidence.
        seed: of the random choices.
    """

    def __init__(self, distance: int, wanted: frozenset[int], seed: int) -> None:
        self.layers: dict[int, Seen] = {}
        """By layer; empty as long as all is attended to."""
        self.wanted = wanted
        self._distance = distance
        self._seed = seed

    def saw(
        self, spec: LayerSpec, queries_raw: Tensor, scaling: float, chosen: Tensor, blocks: BlockView
    ) -> None:
        """Measure one layer's selection for one chunk. Raises EvidenceError when evidence is in plain sight."""
        if self.wanted and max(self.wanted) >= blocks.count:
            raise EvidenceError(
                f"block {max(self.wanted)} holds evidence, but only {blocks.count} blocks are out of sight"
            )
        mass = mean_block_mass(spec, queries_raw, scaling, blocks, self._distance)
        K, alive = chosen.shape[1], blocks.alive
        choices = {
            "chosen": chosen.cpu(),
            "exact": best_choice(mass, alive, K),
            "random": random_choice(mass, alive, K, zlib.crc32(f"{self._seed} {spec.index}".encode())),
        }
        tokens = queries_raw.shape[1]
        covered = {rule: tokens * mass.gather(1, chosen).sum(1) for rule, chosen in choices.items()}
        before = self.layers.get(spec.index)
        if before is not None:  # a question of several chunks
            tokens += before.tokens
            covered = {rule: mass + before.covered[rule] for rule, mass in covered.items()}
        self.layers[spec.index] = Seen(mass, choices, covered, tokens)

    def head_scores(self, layer: int, rule: str) -> list[Scores]:
        """Per KV head."""
        seen = self.layers[layer]
        found: list[Scores] = [{"coverage": mass / seen.tokens} for mass in seen.covered[rule].tolist()]
        if self.wanted:
            for scores, blocks in zip(found, seen.choices[rule].tolist(), strict=True):
                scores.update(hits(blocks, self.wanted))
        return found

    def layer_scores(self, layer: int, rule: str) -> Scores:
        """The heads' choices taken together."""
        return self._ranked(self.layers[layer].mass, self.layers[layer].choices[rule])

    def union_scores(self, rule: str) -> Scores:
        """All layers' choices taken together."""
        seen = self.layers.values()
        masses = torch.cat([one.mass for one in seen])
        return self._ranked(masses, torch.cat([one.choices[rule].flatten() for one in seen]))

    def wanted_mass(self, layer: int) -> list[Scores]:
        """Per KV head, the part of the attention to evicted tokens that goes to the wanted blocks."""
        masses: list[float] = self.layers[layer].mass[:, sorted(self.wanted)].sum(1).tolist()
        return [{"mass": mass} if self.wanted else {} for mass in masses]

    def _ranked(self, masses: Tensor, chosen: Tensor) -> Scores:
        """Figures of distinct blocks ranked by their mean mass; ``part``: how many of all blocks they are."""
        order = ranked(masses.mean(0), chosen)
        part = {"part": len(order) / masses.shape[1]}
        return {**part, **rank_scores(order, self.wanted)} if self.wanted else part


class EvidenceMeasure:
    """Measures the questions of one cell; a :class:`benchmarks.recall.running.Measure`."""

    name = "evidence"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def __call__(self, asked: Asked) -> dict[str, Any]:
        """Plain JSON: ``questions``, one row each; ``heads``, one row per layer and KV head; ``layers``.

        Figures are by rule: coverage, hits, and those of ``rank_scores``. Rows of heads and layers are means over the
        questions. A cell that attends to everything has no rows: nothing is evicted.

        Raises:
            EvidenceError: evidence is not among the blocks when the question is asked.
        """
        watched = [(question, witness) for question, witness in self._watch(asked) if witness.layers]
        witnesses = [witness for _, witness in watched]
        return {
            "questions": [_question_row(question, witness) for question, witness in watched],
            "heads": list(_head_rows(witnesses)),
            "layers": list(_layer_rows(witnesses)),
        }

    def _watch(self, asked: Asked) -> Iterator[tuple[Question, EvidenceWitness]]:
        """Ask each question for one token that nothing remembers; none where all is attended to anyway."""
        model, config = WatchedModel(asked.model), asked.config
        grid = BlockGrid(config.sink_tokens, config.block_tokens)
        distance = POSITION_RULES[config.positions].distance(config)
        with AgentMemory.resume(
            asked.agent, model=model, home=asked.home, config=config, create=False
        ) as memory:
            if memory.tokens_held <= config.dense_limit:
                return
            for question in asked.questions:
                wanted = blocks_of(asked.evidence.get(question.id, ()), grid)
                seed = zlib.crc32(f"{self._seed} {question.id}".encode())
                witness = model.witness = EvidenceWitness(distance, wanted, seed)
                memory.chat(question.prompt, remember=False, max_new_tokens=1)
                yield question, witness


def blocks_of(ranges: Ranges, grid: BlockGrid) -> frozenset[int]:
    """The blocks that hold a part of these token ranges.

    Raises:
        EvidenceError: a range begins in the sinks.
    """
    found: set[int] = set()
    for start, stop in ranges:
        if start < grid.sinks:
            raise EvidenceError(f"evidence [{start}, {stop}) begins in the {grid.sinks} sinks")
        found.update(range((start - grid.sinks) // grid.size, (stop - 1 - grid.sinks) // grid.size + 1))
    return frozenset(found)


def _question_row(question: Question, witness: EvidenceWitness) -> dict[str, Any]:
    """One question: means over layers and heads, means over layers, and the union."""
    layers, first = witness.layers, next(iter(witness.layers.values()))
    rules = {
        rule: {
            "heads": _short(
                mean_scores([one for layer in layers for one in witness.head_scores(layer, rule)])
            ),
            "layers": _short(mean_scores([witness.layer_scores(layer, rule) for layer in layers])),
            "union": _short(witness.union_scores(rule)),
        }
        for rule in RULES
    }
    return {
        "question": question.id,
        "kind": question.kind,
        "tokens": first.tokens,
        "blocks": first.mass.shape[1],
        "chosen": first.choices["chosen"].shape[1],
        "rules": rules,
    }


def _head_rows(witnesses: Sequence[EvidenceWitness]) -> Iterator[dict[str, Any]]:
    """Means over the questions, per layer and KV head; ``wanted`` says what the evidence itself would get."""
    for layer, seen in _layers(witnesses).items():
        for head in range(seen.mass.shape[0]):
            wanted = mean_scores([one.wanted_mass(layer)[head] for one in witnesses])
            rules = {
                rule: _short(mean_scores([one.head_scores(layer, rule)[head] for one in witnesses]))
                for rule in RULES
            }
            yield {"layer": layer, "head": head, "wanted": _short(wanted), "rules": rules}


def _layer_rows(witnesses: Sequence[EvidenceWitness]) -> Iterator[dict[str, Any]]:
    """Means over the questions, per layer."""
    for layer in _layers(witnesses):
        rules = {
            rule: _short(mean_scores([one.layer_scores(layer, rule) for one in witnesses])) for rule in RULES
        }
        yield {"layer": layer, "rules": rules}


def _layers(witnesses: Sequence[EvidenceWitness]) -> Mapping[int, Seen]:
    return witnesses[0].layers if witnesses else {}


def _short(scores: Scores) -> Scores:
    return {name: round(value, DIGITS) for name, value in scores.items()}

"""The rule of a sparse step, written as slowly and plainly as it can be stated. Shares no code with it.

What is attended to, per KV head: the sinks, the chosen blocks in token order, the window, the tokens
since, at positions 0, 1, 2, ... . A turn is a list of chunks, then single steps; each chunk chooses
anew, steps keep the choice for ``reselect_every`` tokens. Only rotating one vector to one position is
asked of the layer's own table, which has tests of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from agentmem.config import MemoryConfig
from agentmem.engine.binding import Binding
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import QUERY_ROWS

CANDIDATES = 4
"""Times as many candidates as blocks are chosen."""
BESIDE_PERCENT = 20
"""Part of the places that go to blocks beside the best ones, rounded down."""
TOGETHER = 2
"""Neighbouring blocks that are candidates together, by one mean of all their keys."""


@dataclass
class Past:
    """One layer's raw keys and values, token by token: ``keys[t]`` is (Hkv, D)."""

    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    queries: list[Tensor] = field(default_factory=list)


class SparseOracle:
    """An attention context for whole turns; ``dead`` are positions that were forgotten."""

    def __init__(self, binding: Binding, config: MemoryConfig) -> None:
        self._binding = binding
        self._config = config
        self._past = [Past() for _ in binding.layers]
        self._chosen: list[list[list[int]]] = [[] for _ in binding.layers]
        self._attended: list[list[list[int]]] = [[] for _ in binding.layers]
        self._dense = True
        self._choosing = False
        self._decoding = False
        self._since_choice = 0
        self.dead: set[int] = set()
        self.attended_counts: list[int] = []
        self.mass: dict[int, float] = {}
        self.rows = 0
        self.measure = False

    @property
    def length(self) -> int:
        """Tokens so far."""
        return len(self._past[0].keys)

    def turn(self, read: list[int], steps: list[int] = []) -> Tensor:  # noqa: B006  never written
        """Logits behind the last read id and behind each step, (1 + steps, V)."""
        size = self._config.chunk_tokens
        self._dense, self._choosing = False, True
        logits = Tensor()
        for start in range(0, len(read), size):
            logits = self._run(read[start : start + size], decoding=False, first=start == 0)
        return torch.stack([logits, *(self._run([step], decoding=True, first=False) for step in steps)])

    def _run(self, ids: list[int], *, decoding: bool, first: bool) -> Tensor:
        stop = self.length + len(ids)
        holds = not first and (
            stop <= self._config.dense_limit
            if self._dense
            else decoding and self._since_choice + len(ids) <= self._config.reselect_every
        )
        self._since_choice = self._since_choice + len(ids) if holds else 0
        self._choosing, self._decoding = not holds, decoding
        if not holds:
            self._dense = stop <= self._config.dense_limit
            self._newest = [past.queries[-QUERY_ROWS:] if decoding else [] for past in self._past]
            for past in self._past:
                past.queries.clear()
        return self._binding.forward(torch.tensor([ids]), self)[0, -1]

    def attend(
        self,
        layer: int,
        q_raw: Tensor,
        k_raw: Tensor,
        v: Tensor,
        *,
        scaling: float,
        softcap: float | None,
        sinks: Tensor | None,
    ) -> Tensor:
        """One head and one query at a time."""
        spec, past = self._binding.layers[layer], self._past[layer]
        before, T = len(past.keys), q_raw.shape[2]
        if self._choosing:
            self._attended[layer] = self._lay_out(spec, before, q_raw[0], scaling)
        past.keys += [k_raw[0, :, t] for t in range(T)]
        past.values += [v[0, :, t] for t in range(T)]
        past.queries += [q_raw[0, :, t] for t in range(T)]
        out = torch.empty_like(q_raw)
        group = spec.num_q_heads // spec.num_kv_heads
        for head in range(spec.num_kv_heads):
            tokens = self._attended[layer][head]
            tokens += range(before, before + T)
            if layer == 0 and head == 0:
                self.attended_counts.append(len(tokens))
            keys = torch.stack([past.keys[t][head] for t in tokens])
            values = torch.stack([past.values[t][head] for t in tokens])
            if spec.rotary is not None and spec.window is None:
                keys = spec.rotary.rotate(keys, torch.arange(len(tokens)))
            elif spec.rotary is not None:
                keys = spec.rotary.rotate(keys, torch.tensor(tokens))
            for g in range(group):
                sink = None if sinks is None else float(sinks[head * group + g])
                for t in range(T):
                    seen = len(tokens) - T + t + 1
                    at = seen - 1 if spec.window is None else before + t
                    q = q_raw[0, head * group + g, t : t + 1]
                    if spec.rotary is not None:
                        q = spec.rotary.rotate(q, torch.tensor([at]))
                    hidden = [self._hidden(token, spec, before + t) for token in tokens[:seen]]
                    share = _softmax(keys[:seen] @ q[0] * scaling, hidden, softcap, sink)
                    out[0, head * group + g, t] = share @ values[:seen]
                    self._note_mass(layer, head, share, t - T)
        return out

    def _hidden(self, token: int, spec: LayerSpec, at: int) -> bool:
        return token in self.dead or (spec.window is not None and token <= at - spec.window)

    def _lay_out(self, spec: LayerSpec, before: int, q_raw: Tensor, scaling: float) -> list[list[int]]:
        """The tokens of the past that each KV head attends to, in order."""
        config, heads = self._config, range(spec.num_kv_heads)
        self._chosen[spec.index] = [[] for _ in heads]
        if self._dense or spec.window is not None:
            return [list(range(before)) for _ in heads]
        sinks = list(range(min(config.sink_tokens, before)))
        blocks, start = [], len(sinks)
        while start + TOGETHER * config.block_tokens + config.window_tokens <= before:
            for _ in range(TOGETHER):
                blocks.append(range(start, start + config.block_tokens))
                start += config.block_tokens
        window = list(range(start, before))
        living = [b for b, tokens in enumerate(blocks) if not self.dead.issuperset(tokens)]
        K = min(config.recall_tokens // config.block_tokens, len(living))
        self._blocks = blocks
        laid_out = []
        for head in heads:
            chosen = self._choose(spec, head, blocks, living, K, q_raw, scaling) if K else []
            self._chosen[spec.index][head] = chosen
            laid_out.append([*sinks, *(t for b in chosen for t in blocks[b]), *window])
        return laid_out

    def _choose(
        self,
        spec: LayerSpec,
        head: int,
        blocks: list[range],
        living: list[int],
        K: int,
        q_raw: Tensor,
        scaling: float,
    ) -> list[int]:
        """Mean keys of pairs pick 4 K candidates; most places go by true attention mass, the others beside those."""
        group, past = spec.num_q_heads // spec.num_kv_heads, self._past[spec.index]
        keys = {b: {t: past.keys[t][head] for t in blocks[b] if t not in self.dead} for b in living}
        votes = []
        for g in range(group):
            rows = [*(q[head * group + g] for q in self._newest[spec.index]), *q_raw[head * group + g]]
            votes += [self._vector(spec, row, scaling) for row in _averaged(rows)]
        candidates = living
        if CANDIDATES * K < len(blocks):
            joint: dict[int, list[Tensor]] = {}
            for b, found in keys.items():
                joint.setdefault(b // TOGETHER, []).extend(found.values())
            means = {pair: torch.stack(found).mean(0) for pair, found in joint.items()}
            coarse = _elect([{pair: float(mean @ q) for pair, mean in means.items()} for q in votes])
            best = _fullest(coarse)[: math.ceil(CANDIDATES * K / TOGETHER)]
            candidates = [b for b in living if b // TOGETHER in best]
        tokens = {t: key for b in candidates for t, key in keys[b].items()}
        mass = _elect([{t: float(key @ q) for t, key in tokens.items()} for q in votes])
        order = _fullest({b: sum(mass.get(t, 0.0) for t in blocks[b]) for b in candidates})
        top = order[: K - K * BESIDE_PERCENT // 100]
        beside = [b for b in _fullest(_claims(top, blocks, mass)) if b in living and b not in top]
        rest = [b for b in order if b not in top and b not in beside]
        return sorted([*top, *beside, *rest][:K])

    def _vector(self, spec: LayerSpec, row: Tensor, scaling: float) -> Tensor:
        """A query as it meets raw keys: turned to the window's distance, scaled."""
        if spec.rotary is None:
            return row * scaling
        turned = spec.rotary.rotate(row[None], torch.tensor([self._config.window_tokens]))[0]
        return turned * spec.rotary.key_scale() * scaling

    def _note_mass(self, layer: int, head: int, share: Tensor, row: int) -> None:
        """Attention that recalled blocks receive from the newest 32 queries of a choosing chunk."""
        chosen = self._chosen[layer]
        if not (self._choosing and (self.measure or self._decoding)) or row < -32 or not chosen[head]:
            return
        self.rows += 1
        start = min(self._config.sink_tokens, self.length)
        for block in chosen[head]:
            stop = start + self._config.block_tokens
            self.mass[block] = self.mass.get(block, 0.0) + float(share[start:stop].sum())
            start = stop


def _softmax(scores: Tensor, hidden: list[bool], softcap: float | None, sink: float | None) -> Tensor:
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    weights = [0.0 if gone else math.exp(float(score)) for score, gone in zip(scores, hidden, strict=True)]
    total = sum(weights) + (math.exp(sink) if sink is not None else 0.0)
    return torch.tensor([weight / total for weight in weights])


def _averaged(rows: list[Tensor]) -> list[Tensor]:
    """At most ``QUERY_ROWS`` queries: runs of neighbours, each its mean."""
    run = max(1, math.ceil(len(rows) / QUERY_ROWS))
    return [torch.stack(rows[i : i + run]).mean(0) for i in range(0, len(rows), run)]


def _elect(logits: list[dict[int, float]]) -> dict[int, float]:
    """Every query shares one vote by softmax; the votes of all, added up."""
    total = dict.fromkeys(logits[0], 0.0)
    for row in logits:
        highest = max(row.values())
        weight = {name: math.exp(x - highest) for name, x in row.items()}
        whole = sum(weight.values())
        for name in total:
            total[name] += weight[name] / whole
    return total


def _fullest(votes: dict[int, float]) -> list[int]:
    """Those with most votes first, the newest among equals."""
    return sorted(votes, key=lambda b: (-votes[b], -b))


def _claims(top: list[int], blocks: list[range], mass: dict[int, float]) -> dict[int, float]:
    """Blocks beside one of the best: its mass, the larger where two of those are beside."""
    claims: dict[int, float] = {}
    for b in top:
        found = sum(mass.get(t, 0.0) for t in blocks[b])
        for beside in (b - 1, b + 1):
            claims[beside] = max(found, claims.get(beside, 0.0))
    return claims

"""The reference modes, one query and one key at a time. Shares no code with the engine's placements.

Every query p sees a key j at a *distance*, and no positions exist beside distances: the query is rotated
to the distance, the key to 0. Which keys are seen, and how far away they are:

    dense chunk        every j <= p                      p - j
    window             p - j < W                         p - j
    lm-infinite        window, or j < sinks              min(p - j, W - 1)
    streaming          window, or j < sinks              min(p, sinks + W - 1) - j  for sinks
    infllm             window, sinks, chosen blocks and
                       what lies in no whole block yet   min(p - j, W - 1)

Choosing is InfLLM's: see :meth:`FarOracle._choose`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from agentmem.config import MemoryConfig
from agentmem.engine.binding import Binding
from agentmem.memory.rotation import LayerSpec

REPRESENTATIVES = 4


class FarOracle:
    """An attention context for whole turns of one agent. ``layers``: specs with another rotation."""

    def __init__(
        self, binding: Binding, config: MemoryConfig, layers: tuple[LayerSpec, ...] | None = None
    ) -> None:
        self._binding = binding
        self._config = config
        self._layers = binding.layers if layers is None else layers
        self._keys: list[list[Tensor]] = [[] for _ in self._layers]
        self._values: list[list[Tensor]] = [[] for _ in self._layers]
        self._received: list[dict[tuple[int, int], float]] = [{} for _ in self._layers]
        self._digests: list[list[list[Tensor]]] = [[] for _ in self._layers]  # [layer][block][query head]
        self._dense = True
        self._chosen: list[set[int]] = [set() for _ in self._layers]
        self._blocks = 0
        self._choosing = True
        self._since_choice = 0
        self.chosen: list[tuple[int, list[int]]] = []

    @property
    def length(self) -> int:
        """Tokens so far."""
        return len(self._keys[0])

    def turn(self, read: list[int], steps: list[int] = []) -> Tensor:  # noqa: B006  never written
        """Logits behind the last read id and behind each step, (1 + steps, V)."""
        size, logits = self._config.chunk_tokens, Tensor()
        for start in range(0, len(read), size):
            logits = self._run(read[start : start + size], decoding=False, first=start == 0)
        return torch.stack([logits, *(self._run([step], decoding=True, first=False) for step in steps)])

    def _run(self, ids: list[int], *, decoding: bool, first: bool) -> Tensor:
        config, stop = self._config, self.length + len(ids)
        holds = not first and (
            stop <= config.dense_limit
            if self._dense
            else decoding and self._since_choice + len(ids) <= config.reselect_every
        )
        self._since_choice = self._since_choice + len(ids) if holds else 0
        self._choosing = not holds
        if self._choosing:
            self._dense = stop <= config.dense_limit
            behind = self.length - config.window_tokens - config.sink_tokens
            self._blocks = max(0, behind // config.block_tokens)
        self._close(max(0, (self.length - config.window_tokens - config.sink_tokens) // config.block_tokens))
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
        """One head, one query, one key at a time."""
        spec, before, T = self._layers[layer], self.length_of(layer), q_raw.shape[2]
        if self._choosing and spec.window is None:
            self._chosen[layer] = set() if self._dense else self._choose(spec, q_raw[0])
        self._keys[layer] += [k_raw[0, :, t] for t in range(T)]
        self._values[layer] += [v[0, :, t] for t in range(T)]
        out = torch.empty_like(q_raw)
        for head in range(spec.num_q_heads):
            kv = head * spec.num_kv_heads // spec.num_q_heads
            for t in range(T):
                weights: dict[int, float] = {}
                for token in range(before + t + 1):
                    distance = self._distance(spec, layer, before + t, token)
                    if distance is None:
                        continue
                    logit = _logit(spec, q_raw[0, head, t], self._keys[layer][token][kv], distance) * scaling
                    weights[token] = math.exp(
                        softcap * math.tanh(logit / softcap) if softcap is not None else logit
                    )
                total = sum(weights.values()) + (0.0 if sinks is None else math.exp(float(sinks[head])))
                out[0, head, t] = sum(
                    (w / total * self._values[layer][token][kv] for token, w in weights.items()),
                    torch.zeros(spec.head_dim),
                )
                self._note(layer, head, before + t, {token: w / total for token, w in weights.items()})
        return out

    def length_of(self, layer: int) -> int:
        """Tokens that a layer has seen."""
        return len(self._keys[layer])

    def _distance(self, spec: LayerSpec, layer: int, query: int, key: int) -> int | None:
        """How far away a key is; None: it is not seen."""
        config, apart = self._config, query - key
        if spec.window is not None:
            return apart if apart < spec.window else None
        W, S = config.window_tokens, config.sink_tokens
        if self._dense or apart < W:
            return apart
        if key < S:
            return min(query, S + W - 1) - key if config.positions == "streaming" else W - 1
        if config.positions != "infllm":
            return None
        block = (key - S) // config.block_tokens
        return W - 1 if block >= self._blocks or block in self._chosen[layer] else None

    # -- InfLLM's rule --------------------------------------------------------------------------------

    def _note(self, layer: int, head: int, query: int, shares: dict[int, float]) -> None:
        """Attention that tokens receive while they are in the window of the query."""
        for token, share in shares.items():
            if query - token < self._config.window_tokens:
                key = (head, token)
                self._received[layer][key] = self._received[layer].get(key, 0.0) + share

    def _close(self, blocks: int) -> None:
        """Blocks that lie behind the window now: their four most attended keys, averaged, per query head."""
        size, S = self._config.block_tokens, self._config.sink_tokens
        for spec in self._layers:
            digests = self._digests[spec.index]
            while spec.window is None and len(digests) < blocks:
                tokens = range(S + len(digests) * size, S + (len(digests) + 1) * size)
                digests.append([self._mean_of_best(spec, head, tokens) for head in range(spec.num_q_heads)])

    def _mean_of_best(self, spec: LayerSpec, head: int, tokens: range) -> Tensor:
        received = self._received[spec.index]
        best = sorted(tokens, key=lambda t: (-received[head, t], -t))[:REPRESENTATIVES]
        kv = head * spec.num_kv_heads // spec.num_q_heads
        return torch.stack([self._keys[spec.index][t][kv] for t in best]).mean(0)

    def _choose(self, spec: LayerSpec, q_raw: Tensor) -> set[int]:
        """Raw dot products of the chunk's mean query, a window away, with each digest, summed over heads."""
        config = self._config
        K = min(config.recall_tokens // config.block_tokens, self._blocks)
        if not K:
            return set()
        scores = dict.fromkeys(range(self._blocks), 0.0)
        for head in range(spec.num_q_heads):
            mean = q_raw[head].mean(0)
            for block in scores:
                digest = self._digests[spec.index][block][head]
                scores[block] += _logit(spec, mean, digest, config.window_tokens - 1)
        best = sorted(scores, key=lambda b: (-scores[b], -b))[:K]
        self.chosen.append((spec.index, sorted(best)))
        return set(best)


def _logit(spec: LayerSpec, query: Tensor, key: Tensor, distance: int) -> float:
    """q . k at a distance; rotating one vector to one position is the table's, which has tests of its own."""
    if spec.rotary is None:
        return float(query @ key)
    turned = spec.rotary.rotate(query[None], torch.tensor([distance]))[0]
    return float(turned @ spec.rotary.rotate(key[None], torch.tensor([0]))[0])

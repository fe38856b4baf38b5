"""The peer: transformers' own full attention over the same token ids, with its ``DynamicCache``.

What it reads is read in chunks as ``generate(prefill_chunk_size=...)`` does; replies are ``generate`` on the
kept cache. Reading 32K tokens in full attention takes longer than all else together, so beyond
``Plan.peer_read`` the cache is filled up with copies of itself: its speed does not depend on the values.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import DynamicCache, LogitsProcessorList

from agentmem.engine.loading import load, resolve
from benchmarks.machine import MIB
from benchmarks.plan import Plan, Samples
from benchmarks.step_clock import StepClock

_CHUNK = 512


class PeerSide:
    """The stock model beside ours. Holds one cache per length that fits."""

    def __init__(
        self,
        name: str,
        ids: Mapping[int, Sequence[int]],
        question_ids: Sequence[int],
        stop_ids: frozenset[int],
        plan: Plan,
        samples: Samples,
    ) -> None:
        self._name = name
        self._model: Any = load(resolve(name), device="cpu").model
        self._ids = ids
        self._question = list(question_ids)
        self._stop_ids = stop_ids
        self._plan = plan
        self._samples = samples
        self._trained = int(self._model.config.max_position_embeddings)
        more = plan.peer_reply + len(question_ids)
        self._caches = {n: DynamicCache() for n in sorted(ids) if len(ids[n]) + more <= self._trained}
        for length in sorted(set(ids) - set(self._caches)):
            samples.skip(f"{name}: full attention at {length:,} tokens: trained for {self._trained:,}")

    @property
    def lengths(self) -> Sequence[int]:
        """The lengths it can be measured at."""
        return sorted(self._caches)

    @torch.inference_mode()
    def build(self) -> None:
        """Fill the caches: read what is to be read, copy the rest."""
        read = DynamicCache()
        for length, cache in self._caches.items():
            real = min(len(self._ids[length]), self._plan.peer_read)
            self._read(self._ids[length][read.get_seq_length() : real], read)
            _copy(read, cache, len(self._ids[length]))
            size = sum(tensor.nbytes for pair in _pairs(cache) for tensor in pair)
            self._samples.add(self._name, length, "peer_cache_mib", size / MIB)

    @torch.inference_mode()
    def round(self, length: int) -> None:
        """Decode a reply and read a chunk at one length."""
        cache = self._caches[length]
        held = cache.get_seq_length()
        self._reply(length, cache)
        _shrink(cache, held)
        new = self._ids[length][: min(self._plan.peer_ingest, self._trained - held)]
        started = time.perf_counter()
        self._read(new, cache)
        speed = len(new) / (time.perf_counter() - started)
        self._samples.add(self._name, length, "peer_ingest_tokens_per_s", speed)
        _shrink(cache, held)

    def _reply(self, length: int, cache: DynamicCache) -> None:
        ids = torch.tensor([[*self._ids[length], *self._question]])
        clock = StepClock(self._stop_ids)
        self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=cache,
            max_new_tokens=self._plan.peer_reply,
            do_sample=False,
            logits_processor=LogitsProcessorList([clock]),
        )
        self._samples.add(self._name, length, "peer_decode_tokens_per_s", clock.tokens_per_second)
        self._samples.add(self._name, length, "peer_decode_step_ms", clock.median_step)

    def _read(self, ids: Sequence[int], cache: DynamicCache) -> None:
        for start in range(0, len(ids), _CHUNK):
            chunk = torch.tensor([ids[start : start + _CHUNK]])
            self._model(chunk, past_key_values=cache, use_cache=True, logits_to_keep=1)


def _shrink(cache: DynamicCache, length: int) -> None:
    """Drop the tokens behind ``length``."""
    if cache.get_seq_length() > length:
        cache.crop(length - cache.get_seq_length())


def _pairs(cache: DynamicCache) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values of each layer."""
    for layer in cache.layers:
        held: Any = layer
        yield held.keys, held.values


def _copy(source: DynamicCache, target: DynamicCache, length: int) -> None:
    """Fill ``target`` with ``length`` tokens of K/V, repeating what ``source`` holds."""
    held = source.get_seq_length()
    times = -(-length // held)
    for index, pair in enumerate(_pairs(source)):
        keys, values = (torch.cat([tensor] * times, dim=2)[:, :, :length] for tensor in pair)
        target.update(keys.contiguous(), values.contiguous(), index)

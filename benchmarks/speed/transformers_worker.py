"""transformers' own full attention in a process of its own: the stock model and its ``DynamicCache``.

    python -m benchmarks.speed.transformers_worker MODEL

A long cache is filled with random keys and values instead of being read: speed does not depend on them.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from transformers import DynamicCache, LogitsProcessorList

from agentmem.engine.loading import load, resolve
from benchmarks.speed.rpc import Figures, serve
from benchmarks.step_clock import StepClock


class TransformersSide:
    """The stock model, as ``AutoModelForCausalLM`` loads it."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._config = model.config.get_text_config()
        end = model.generation_config.eos_token_id
        self._stop_ids = [end] if isinstance(end, int) else list(end or [])

    def info(self) -> dict[str, Any]:
        """What runs here."""
        return {"weights": str(self._model.dtype), "attention": self._config._attn_implementation}  # noqa: SLF001

    @torch.inference_mode()
    def chunk(self, length: int, tokens: int) -> Figures:
        """Read so many tokens behind ``length`` ones, as ``generate(prefill_chunk_size=tokens)`` would."""
        cache = self._filled(length)
        return self._read(tokens, cache)

    @torch.inference_mode()
    def whole(self, length: int) -> Figures:
        """Read so many tokens from nothing, at once, as ``generate`` does."""
        self._read(16, DynamicCache())
        return self._read(length, DynamicCache())

    @torch.inference_mode()
    def decode(self, length: int, tokens: int) -> Figures:
        """``generate`` greedily behind ``length`` tokens; the first token is not timed."""
        cache, clock = self._filled(length), StepClock(self._stop_ids)
        ids = self._ids(length + 1)
        self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=cache,
            max_new_tokens=tokens,
            do_sample=False,
            logits_processor=LogitsProcessorList([clock]),
        )
        return {"tokens_per_s": clock.tokens_per_second, "step_ms": clock.median_step}

    def _read(self, tokens: int, cache: DynamicCache) -> Figures:
        ids = self._ids(tokens)
        started = time.perf_counter()
        self._model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return {"seconds": time.perf_counter() - started, "tokens": tokens}

    def _ids(self, tokens: int) -> torch.Tensor:
        vocabulary = int(self._config.vocab_size)
        return (torch.arange(tokens) % min(1_000, vocabulary - 8) + 4)[None]

    def _filled(self, length: int) -> DynamicCache:
        """A cache of so many random tokens."""
        cache, config = DynamicCache(), self._config
        if not length:
            return cache
        dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (1, config.num_key_value_heads, length, dim)
        for layer in range(config.num_hidden_layers):
            keys, values = (torch.randn(shape).to(self._model.dtype) for _ in range(2))
            cache.update(keys, values, layer)
        return cache


def main() -> None:
    """Serve the model that the command line names."""
    (name,) = sys.argv[1:]
    side = TransformersSide(load(resolve(name), device="cpu").model)
    serve({call.__name__: call for call in (side.info, side.chunk, side.whole, side.decode)})


if __name__ == "__main__":
    main()

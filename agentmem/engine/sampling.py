"""Choosing the next token from the model's logits, with transformers' own processors and warpers.

Knows logits and the ids of this turn; knows no text, no model and no memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from agentmem.errors import InputError, ModelError

LogitsProcessor = Callable[[Tensor, Tensor], Tensor]
"""As in transformers: (input_ids (1, n) int64, scores (1, V)) -> scores (1, V)."""


@dataclass(frozen=True)
class SamplingOptions:
    """How a reply is sampled. Temperature 0 is greedy: always the likeliest token.

    Raises:
        InputError: an option is out of range.
    """

    max_new_tokens: int = 256
    """The reply ends after so many tokens at the latest."""
    min_new_tokens: int = 0
    """The model may not end the reply before so many tokens; 1 forbids an empty one."""
    temperature: float = 0.0
    """Divides the logits; 0: greedy, top_p and top_k are not used."""
    top_p: float = 1.0
    """Sample from the likeliest tokens that together have this probability; 1: from all."""
    top_k: int = 0
    """Sample from so many of the likeliest tokens; 0: from all."""
    repetition_penalty: float = 1.0
    """Above 1, makes tokens of this turn's prompt and reply less likely (arXiv 1909.05858)."""
    seed: int | None = None
    """The same seed draws the same tokens; None: a new one each time."""
    stop: tuple[str, ...] = ()
    """Texts that end the reply; they are not part of it. One string may be given by itself."""

    def __post_init__(self) -> None:
        stop: object = self.stop
        if isinstance(stop, str | list):
            object.__setattr__(self, "stop", (stop,) if isinstance(stop, str) else tuple(stop))
        for name, (allowed, wanted) in _ALLOWED.items():
            value = getattr(self, name)
            if not allowed(value):
                raise InputError(f"{name}={value!r} cannot be used; give {wanted}.")

    @property
    def greedy(self) -> bool:
        """Whether no chance is involved."""
        return self.temperature == 0


class Sampler:
    """Draws one reply, token by token. Deterministic for equal logits, options and seed, on any device.

    Args:
        options: how to draw.
        prompt_ids: ids of this turn's prompt, for the repetition penalty and the extra processors.
        extra_processors: called like transformers', after the penalty and before temperature.
    """

    def __init__(
        self,
        options: SamplingOptions,
        prompt_ids: Sequence[int],
        extra_processors: Sequence[LogitsProcessor] = (),
    ) -> None:
        self.options = options
        self._length = len(prompt_ids)
        self._ids = torch.zeros(1, self._length + options.max_new_tokens, dtype=torch.int64)
        self._ids[0, : self._length] = torch.tensor(list(prompt_ids), dtype=torch.int64)
        extra = _checked_processors(extra_processors)
        self._processors = _processors(options, extra)
        self._extra = bool(extra)
        self._scores = torch.empty(1, 0)  # reused: fresh memory for V floats costs more than greedy's work
        self._generator = torch.Generator()
        self.seed = options.seed if options.seed is not None else self._generator.seed() & (1 << 63) - 1
        self._generator.manual_seed(self.seed)

    def next(self, logits: Tensor, barred: Sequence[int] = ()) -> int:
        """The next token's id, for logits (V,) of any float dtype; they are left as they are.

        Args:
            logits: the model's scores.
            barred: ids that may not be drawn this time.

        Raises:
            ModelError: the logits are not finite.
            InputError: the extra processors left no token to choose or gave back something else than scores, or
                the reply is already full.
        """
        if self._length == self._ids.shape[1]:
            raise InputError(f"the reply is full: max_new_tokens={self.options.max_new_tokens}.")
        scores = self._copy(logits)
        if self._ids.device != scores.device:
            self._ids = self._ids.to(scores.device)
        so_far = cast("torch.LongTensor", self._ids[:, : self._length])
        if barred:
            scores[0, list(barred)] = -math.inf
        kept = scores.shape
        scores = self._processors(so_far, cast("torch.FloatTensor", scores))
        if self._extra and (not isinstance(scores, Tensor) or scores.shape != kept):
            raise InputError(f"a logits processor must return the scores, a tensor of shape {tuple(kept)}")
        likeliest = int(scores.argmax())
        self._check_finite(float(scores[0, likeliest]))
        chosen = likeliest if self.options.greedy else self._draw(scores)
        self._ids[0, self._length] = chosen
        self._length += 1
        return chosen

    def _draw(self, scores: Tensor) -> int:
        """One draw on the CPU, so that a seed means the same on every device."""
        probabilities = scores.softmax(dim=-1).cpu()
        return int(torch.multinomial(probabilities, 1, generator=self._generator))

    def _copy(self, logits: Tensor) -> Tensor:
        """The logits as (1, V) float32, in reused memory unless a caller's processor could hold on to it."""
        if self._extra:
            return logits.detach().to(torch.float32, copy=True).unsqueeze(0)
        if self._scores.shape[1] != logits.shape[0] or self._scores.device != logits.device:
            self._scores = torch.empty(1, logits.shape[0], device=logits.device)
        self._scores[0].copy_(logits.detach())
        return self._scores

    def _check_finite(self, highest: float) -> None:
        if math.isfinite(highest):
            return
        if self._extra:
            raise InputError(
                "the logits processors left no token to choose from; let them allow at least one."
            )
        raise ModelError("the model's logits are not finite. Try dtype='float32', or another model.")


def _processors(options: SamplingOptions, extra: Sequence[LogitsProcessor]) -> LogitsProcessorList:
    """Penalty, extra processors, then temperature, top-k and top-p: the order of transformers' generate."""
    processors = LogitsProcessorList()
    if options.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(options.repetition_penalty))
    processors.extend(extra)
    if not options.greedy:
        if options.temperature != 1.0:
            processors.append(TemperatureLogitsWarper(options.temperature))
        if options.top_k:
            processors.append(TopKLogitsWarper(options.top_k))
        if options.top_p < 1.0:
            processors.append(TopPLogitsWarper(options.top_p))
    return processors


def _checked_processors(extra: Sequence[LogitsProcessor]) -> Sequence[LogitsProcessor]:
    """The caller's processors. Raises InputError for what cannot be called."""
    if not isinstance(extra, Iterable):
        raise InputError("logits_processor must be a list of callables (input_ids, scores) -> scores")
    kept = list(extra)
    for one in kept:
        if not callable(one):
            raise InputError(f"a logits processor must be callable, got {type(one).__name__}")
    return kept


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_ALLOWED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "max_new_tokens": (lambda n: _whole(n) and n >= 1, "a whole number of at least 1"),
    "min_new_tokens": (lambda n: _whole(n) and n >= 0, "a whole number of at least 0 (0 turns it off)"),
    "temperature": (lambda x: _real(x) and x >= 0, "a number of at least 0 (0 is greedy)"),
    "top_p": (lambda x: _real(x) and 0 < x <= 1, "a number above 0 and up to 1 (1 turns it off)"),
    "top_k": (lambda n: _whole(n) and n >= 0, "a whole number of at least 0 (0 turns it off)"),
    "repetition_penalty": (lambda x: _real(x) and x > 0, "a number above 0 (1 turns it off)"),
    "seed": (
        lambda n: n is None or (_whole(n) and 0 <= n < 1 << 63),
        "a whole number from 0 to 2**63 - 1, or None",
    ),
    "stop": (
        lambda texts: isinstance(texts, tuple) and all(isinstance(t, str) and t for t in texts),
        "a text or several, none of them empty",
    ),
}

"""Choosing the next token from the model's logits, with transformers' own processors and warpers.

Knows logits and the ids of this turn; knows no text, no model and no memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        object.__setattr__(self, "stop", stop)
        _check(_whole(self.max_new_tokens) and self.max_new_tokens >= 1, "max_new_tokens",
               self.max_new_tokens, "a whole number of at least 1")  # fmt: skip
        _check(_real(self.temperature) and self.temperature >= 0, "temperature",
               self.temperature, "a number of at least 0 (0 is greedy)")  # fmt: skip
        _check(_real(self.top_p) and 0 < self.top_p <= 1, "top_p",
               self.top_p, "a number above 0 and up to 1 (1 turns it off)")  # fmt: skip
        _check(_whole(self.top_k) and self.top_k >= 0, "top_k",
               self.top_k, "a whole number of at least 0 (0 turns it off)")  # fmt: skip
        _check(_real(self.repetition_penalty) and self.repetition_penalty > 0, "repetition_penalty",
               self.repetition_penalty, "a number above 0 (1 turns it off)")  # fmt: skip
        _check(self.seed is None or (_whole(self.seed) and 0 <= self.seed < 1 << 63), "seed",
               self.seed, "a whole number from 0 to 2**63 - 1, or None")  # fmt: skip
        _check(all(isinstance(text, str) and text for text in stop), "stop",
               self.stop, "a text, or several; none of them empty")  # fmt: skip

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
        self._processors = _processors(options, extra_processors)
        self._extra = bool(extra_processors)
        self._generator = torch.Generator()
        self.seed = options.seed if options.seed is not None else self._generator.seed()
        self._generator.manual_seed(self.seed)

    def next(self, logits: Tensor) -> int:
        """The next token's id, for logits (V,) of any float dtype; they are left as they are.

        Raises:
            ModelError: the logits are not finite.
            InputError: the extra processors left no token to choose, or the reply is already full.
        """
        if self._length == self._ids.shape[1]:
            raise InputError(f"the reply is full: max_new_tokens={self.options.max_new_tokens}.")
        scores = logits.detach().to(torch.float32, copy=True).unsqueeze(0)  # (1, V)
        if self._ids.device != scores.device:
            self._ids = self._ids.to(scores.device)
        scores = self._processors(self._ids[:, : self._length], scores)
        self._check_scores(scores)
        chosen = int(scores.argmax()) if self.options.greedy else self._draw(scores)
        self._ids[0, self._length] = chosen
        self._length += 1
        return chosen

    def _draw(self, scores: Tensor) -> int:
        """One draw on the CPU, so that a seed means the same on every device."""
        probabilities = scores.softmax(dim=-1).cpu()
        return int(torch.multinomial(probabilities, 1, generator=self._generator))

    def _check_scores(self, scores: Tensor) -> None:
        if math.isfinite(float(scores.max())):
            return
        if self._extra:
            raise InputError("the logits processors left no token to choose from; let them allow at least one.")
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


def _check(good: bool, name: str, value: object, wanted: str) -> None:
    if not good:
        raise InputError(f"{name}={value!r} cannot be used; give {wanted}.")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

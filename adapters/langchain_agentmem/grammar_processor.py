"""A logits processor that keeps one reply inside a grammar.

Knows masks, ids and llguidance's matcher; knows nothing of what the grammar is for.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agentmem.errors import InputError


class GrammarProcessor:
    """Leaves only tokens that the grammar can go on with; at its end only those that end the reply.

    For one reply: the ids sampled since the first call are read, whatever stood before them.

    Args:
        matcher: an ``llguidance.LLMatcher`` at its start.
        vocabulary: how many ids the tokenizer has; the model may score more.
        stop_ids: ids that end a reply.
        free_ids: special tokens, which have no text, that are let pass where the grammar could end.
    """

    def __init__(
        self, matcher: Any, vocabulary: int, stop_ids: Collection[int], free_ids: Collection[int] = ()
    ) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._stop_ids = np.array(sorted(i for i in stop_ids if i < vocabulary), dtype=np.int64)
        self._free_ids = np.array(sorted(i for i in free_ids if i < vocabulary), dtype=np.int64)
        self._free = frozenset(free_ids)
        self._numpy: Any = import_module("llguidance.numpy")
        self._words = self._numpy.allocate_token_bitmask(1, vocabulary)  # (1, V/32), reused for each token
        self._seen: int | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Mask ``scores`` (1, V) in place, for the reply whose ids so far end ``input_ids`` (1, n).

        Raises:
            InputError: an id that the grammar had ruled out was sampled, or a second reply began.
        """
        self._read(input_ids)
        banned = torch.from_numpy(self._banned()[: scores.shape[1]])
        scores[0, : len(banned)].masked_fill_(banned.to(scores.device), -math.inf)
        scores[0, len(banned) :] = -math.inf
        return scores

    def _read(self, input_ids: Tensor) -> None:
        """Let the matcher follow what was sampled since the last call."""
        length = input_ids.shape[1]
        if self._seen is None:
            self._seen = length
        if length < self._seen:
            raise InputError("this processor has followed a reply already; make a new one for the next.")
        for token in input_ids[0, self._seen :].tolist():
            skipped = token in self._free and self._matcher.is_accepting()
            if skipped and not self._matcher.validate_tokens([token]):
                continue
            if not self._matcher.consume_token(token):
                raise InputError(
                    f"token {token} does not fit the grammar of the reply: {_words(self._matcher)}. "
                    "Use a processor for one reply, and let no other one bring tokens back."
                )
        self._seen = length

    def _banned(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """(vocabulary,): ids that may not come next."""
        accepting = self._matcher.is_accepting()
        if self._matcher.is_stopped():
            self._words[:] = -1
        else:
            self._numpy.fill_next_token_bitmask(self._matcher, self._words)
            np.invert(self._words, out=self._words)
        if self._matcher.is_error():
            raise InputError(f"the grammar of the reply cannot be followed: {_words(self._matcher)}.")
        bits = np.unpackbits(self._words.view(np.uint8)[0], count=self._vocabulary, bitorder="little")
        banned = bits.view(np.bool_)
        banned[self._stop_ids] = not accepting
        if accepting and not self._matcher.is_stopped():
            banned[self._free_ids] = False
        return banned


def _words(matcher: Any) -> str:
    """What llguidance says is wrong, in one line."""
    return str(matcher.get_error()).strip().partition("\n")[0] or "it is over"

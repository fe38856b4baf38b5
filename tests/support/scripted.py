"""Replies that are known beforehand: a logits processor that allows one token at a time."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from transformers import PreTrainedTokenizerBase


class Scripted:
    """Makes the model say a text, token by token, and then its end token. A new one for each reply."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, text: str, *, end: bool = True) -> None:
        self.ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        if end:
            self.ids.append(int(tokenizer.eos_token_id))
        self._next = 0

    def __call__(self, _: Tensor, scores: Tensor) -> Tensor:
        """Only the next token of the text may be sampled."""
        kept = float(scores[0, self.ids[self._next]])
        scores.fill_(float("-inf"))
        scores[0, self.ids[self._next]] = kept
        self._next += 1
        return scores


def rendered(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]], *, reply: bool
) -> list[int]:
    """Ids of a whole conversation as the chat template itself writes it."""
    text = tokenizer.apply_chat_template(list(messages), add_generation_prompt=reply, tokenize=False)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids

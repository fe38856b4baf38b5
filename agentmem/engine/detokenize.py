"""Token ids to text, one id at a time: never half a character, never the whole reply again.

Two ways. A byte-level tokenizer's tokens are bytes, so an incremental UTF-8 decoder gives exactly
what decoding everything at once would. For any other tokenizer the newest few tokens are decoded
together, and what may still change is held back. Knows the tokenizer; knows nothing of replies.
"""

from __future__ import annotations

import codecs
from functools import cache
from typing import Protocol

from tokenizers import decoders
from transformers import PreTrainedTokenizerBase

_BROKEN = "\ufffd"
_WINDOW = 24
"""Tokens after which a text that still ends in a broken character is taken as it is."""


class Detokenizer(Protocol):
    """Turns ids into text. ``push`` gives the text that became certain; ``flush`` the rest, broken or not."""

    @property
    def whole(self) -> bool:
        """Whether all text of the ids so far has been given, none held back."""
        ...

    def push(self, token_id: int) -> str:
        """Text that became certain with this id."""
        ...

    def flush(self) -> str:
        """The text held back; an incomplete character as U+FFFD."""
        ...


def detokenizer(tokenizer: PreTrainedTokenizerBase) -> Detokenizer:
    """The way that fits the tokenizer. Special tokens have no text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and isinstance(backend.decoder, decoders.ByteLevel):
        return ByteDetokenizer(tokenizer)
    return WindowDetokenizer(tokenizer)


class ByteDetokenizer:
    """For byte-level BPE: exact for any ids, constant work per id."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._skipped = _special_ids(tokenizer)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    @property
    def whole(self) -> bool:
        """Whether no byte is held back."""
        return not self._decoder.getstate()[0]

    def push(self, token_id: int) -> str:
        """Text that became certain with this id."""
        return self._decoder.decode(self._bytes(token_id))

    def flush(self) -> str:
        """The held bytes, as U+FFFD."""
        return self._decoder.decode(b"", final=True)

    def _bytes(self, token_id: int) -> bytes:
        token = None if token_id in self._skipped else self._tokenizer.convert_ids_to_tokens(token_id)
        if not token:  # the model's vocabulary may be larger than the tokenizer's
            return b""
        values = _byte_values()
        if all(character in values for character in token):
            return bytes(values[character] for character in token)
        return str(token).encode()


class WindowDetokenizer:
    """For every other tokenizer: decodes the tokens since the last certain text, with some before them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._skipped = _special_ids(tokenizer)
        self._context: list[int] = []  # already given; tells how the next token's text begins
        self._new: list[int] = []
        self._given = 0  # characters of the window's text already given, the context's included

    @property
    def whole(self) -> bool:
        """Whether no text is held back."""
        return not self._new

    def push(self, token_id: int) -> str:
        """Text that became certain with this id."""
        if token_id in self._skipped:
            return ""
        self._new.append(token_id)
        text = self._decode(self._context + self._new)
        certain = text.rstrip(_BROKEN)
        if len(certain) == len(text) or len(self._new) >= _WINDOW:
            return self._advance(text)
        piece = certain[self._given :]
        self._given = max(self._given, len(certain))
        return piece

    def flush(self) -> str:
        """The text held back, broken characters as U+FFFD."""
        return self._advance(self._decode(self._context + self._new)) if self._new else ""

    def _advance(self, text: str) -> str:
        piece = text[self._given :]
        self._context, self._new = self._new, []
        self._given = len(self._decode(self._context))
        return piece

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens without text: more than the named ones, such as <|im_start|>."""
    return frozenset(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)


@cache
def _byte_values() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes, back to the bytes."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    values = {chr(byte): byte for byte in printable}
    values.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return values

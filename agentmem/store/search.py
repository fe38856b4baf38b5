"""What a search for words means: the same for every store, with or without a table of words.

Words are runs of letters and digits; case and accents do not count; a word of the query matches any
word that begins with it. Knows only text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> list[str]:
    """The words of a text, folded: no case, no accents."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return _WORD.findall(plain.casefold())


def text_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """All text in the messages: string contents, and the text parts of structured contents."""
    return "\n".join(part for message in messages for part in _texts(message.get("content")))


def holds_all(messages: Sequence[Mapping[str, Any]], wanted: Sequence[str]) -> bool:
    """Whether each wanted (folded) word begins some word of the messages."""
    words = words_of(text_of(messages))
    return all(any(word.startswith(want) for word in words) for want in wanted)


def spoken_words(messages: Sequence[Mapping[str, Any]]) -> str:
    """The folded words of all text in the messages, a space before each: " my dog biscuit"."""
    return "".join(f" {word}" for word in words_of(text_of(messages)))


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, Sequence):
        for part in content:
            if isinstance(part, Mapping):
                yield from _texts(part.get("text"))
            else:
                yield from _texts(part)

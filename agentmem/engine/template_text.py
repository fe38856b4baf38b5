"""Rendering a chat template to text, and text to ids, so that no content can pose as structure.

Hugging Face tokenises a rendered conversation as one string: a user who types ``<|im_end|>`` closes
the message. Here every control token found in a content is marked with two Unicode noncharacters
before rendering; the marks travel through the template, and a marked token is tokenised in two
halves, as plain text. Text without control tokens is tokenised exactly as Hugging Face does.
What a template writes as ordinary text (Zephyr's ``<|user|>``, the first Mistral's ``[INST]``) is no
token, and can be typed by anyone: such a model cannot tell the difference.

Knows the tokenizer and its template; knows nothing of turns, deltas or memories.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from agentmem.errors import TemplateError

Message = Mapping[str, Any]

_START, _END = "\ufdd0", "\ufdd1"
"""Noncharacters: no valid text holds them, so they are removed from contents without loss."""
_MARKS = re.compile(f"{_START}([^{_START}{_END}]*){_END}|[{_START}{_END}]")

PLAIN_TEMPLATE = (
    "{{ bos_token if bos_token is defined and bos_token else '' }}"
    "{% for message in messages %}"
    "{{ '### ' + message['role'] | capitalize + ':\\n' + message['content'] + '\\n\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Assistant:\\n' }}{% endif %}"
)
"""The format of a model that has no chat template: ``### User:``, a line break, the text, a blank line."""
PLAIN_STOPS = ("\n### User:", "\n### System:", "\n### Assistant:", "\n### Tool:")


class TemplateText:
    """One tokenizer's chat template: messages to marked text, marked text to ids.

    Args:
        tokenizer: the model's tokenizer; only read, and only called without options that would
            change its state, so that several threads may share it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self.plain = not tokenizer.chat_template
        self.source = PLAIN_TEMPLATE if self.plain else _source(tokenizer.chat_template)
        added = tokenizer.added_tokens_decoder
        self.special_ids = frozenset(i for i, token in added.items() if token.special)
        self._lstrip = frozenset(token.content for token in added.values() if token.lstrip)
        self._ids = {token.content: i for i, token in added.items()}
        special = {token.content for token in added.values() if token.special}
        written = {token.content for token in added.values() if token.content in self.source}
        self._added = _any_of(self._ids)
        self._special = _any_of(special)
        self._control = _any_of(special | written)
        self._newline = self._encode("\n")
        lines = self._encode("a\na")
        self._prefixes = bool(lines) and self._encode("a")[-1:] != lines[-1:]

    def render(
        self, messages: Sequence[Message], *, reply: bool, tools: Sequence[Message] | None = None
    ) -> str:
        """The template's text for marked ``messages``, ended by the generation prompt if ``reply``.

        Raises:
            TemplateError: the template refuses the messages, or fails.
        """
        try:
            text = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tools=[dict(tool) for tool in tools] if tools else None,
                chat_template=PLAIN_TEMPLATE if self.plain else None,
                add_generation_prompt=reply,
                tokenize=False,
            )
        except Exception as error:  # a template is a program of unknown origin: it may raise anything
            roles = ", ".join(str(message.get("role")) for message in messages)
            raise TemplateError(
                f"the chat template cannot render messages with the roles {roles}: {error}. "
                "Give messages in an order the model's template knows."
            ) from error
        return str(text)

    def mark(self, value: Any, *, trusted: bool = False) -> Any:
        """``value`` with every control token in its strings marked, at any depth, keys included.

        Control tokens are the special tokens and the added tokens the template itself writes, such
        as ``<tool_call>``; in ``trusted`` text, the model's own, only the special ones.
        """
        if isinstance(value, str):
            bare = value.replace(_START, "").replace(_END, "")
            pattern = self._special if trusted else self._control
            return pattern.sub(f"{_START}\\g<0>{_END}", bare)
        if isinstance(value, Mapping):
            mark = self.mark
            return {mark(key, trusted=trusted): mark(item, trusted=trusted) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.mark(item, trusted=trusted) for item in value]
        return value

    def encode(self, text: str, *, inside: bool) -> list[int]:
        """Ids of marked text. ``inside``: it goes on from earlier text, so no start-of-text space is put."""
        ids: list[int] = []
        for index, piece in enumerate(_MARKS.split(text)):
            if not piece:
                continue
            if index % 2:
                ids += self._encode_apart(piece)
            else:
                ids += self._encode_piece(piece, inside=inside or index > 0)
        return ids

    def encode_cut(self, head: str, tail: str, *, inside: bool) -> tuple[list[int], list[int]]:
        """Ids of ``head`` and of ``tail``, together the ids of both as one text wherever that is possible.

        It is, if ``tail`` begins with an added token, or if no token spans the cut.
        """
        opening = self.leading_token(tail)
        first = self.encode(head, inside=inside)
        if not tail or (opening and opening not in self._lstrip):
            return first, self.encode(tail, inside=inside or bool(head))
        whole = self.encode(head + tail, inside=inside)
        if whole[: len(first)] == first:
            return first, whole[len(first) :]
        return first, self.encode(tail, inside=True)

    def leading_token(self, text: str) -> str:
        """The added token ``text`` begins with, spaces before it aside; empty if there is none."""
        found = self._added.match(text.lstrip(" \n"))
        return found.group() if found else ""

    def token_id(self, token: str) -> int | None:
        """The id of an added token, or None."""
        return self._ids.get(token)

    def has_special(self, text: str) -> bool:
        """Whether unmarked special tokens stand in ``text``."""
        return bool(self._special.search(_MARKS.sub(" ", text)))

    def _encode_piece(self, text: str, *, inside: bool) -> list[int]:
        """Plain text. SentencePiece puts a space before a text; behind a line break it cannot."""
        if inside and self._prefixes:
            ids = self._encode("\n" + text)
            if ids[: len(self._newline)] == self._newline:
                return ids[len(self._newline) :]
        return self._encode(text)

    def _encode_apart(self, token: str) -> list[int]:
        """A control token as plain text: split after its first character, or at every one if need be."""
        pieces = [token[0], token[1:]] if not self._added.search(token[1:]) else list(token)
        return [i for piece in pieces for i in self._encode_piece(piece, inside=True)]

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False, verbose=False))


def _source(template: Any) -> str:
    """The template's text; a tokenizer may have several, by name."""
    if isinstance(template, Mapping):
        return "\0".join(f"{name}\0{text}" for name, text in sorted(template.items()))
    return str(template)


def _any_of(tokens: Any) -> re.Pattern[str]:
    """A pattern for any of the tokens, the longest first; single characters cannot be split, so not them."""
    wanted = sorted((t for t in tokens if len(t) > 1 and not t.isspace()), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, wanted)) or "(?!)")

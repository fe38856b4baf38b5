"""The text of a reply while it is sampled: when it ends, what may be shown, what the log keeps.

Text that may still become a stop string is held back. After a stop string the reply is what came
before it; the log keeps the tokens whose text lies wholly there, and the rest of that text is given
back to be tokenised anew, so that the log's text is the reply's text. Knows no model and no template.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from agentmem.engine.detokenize import detokenizer
from agentmem.errors import InputError


@dataclass(frozen=True)
class StreamEnd:
    """How a reply ended.

    The log's text is the reply's text with the first ``kept`` sampled tokens, then the ids of
    ``rest``: of n forwarded ones drop those beyond ``kept``; ``sampled[n:kept]`` and the ids of
    ``rest`` are pending. The stop token of "stop" is not content, and not among the kept.
    """

    finish_reason: Literal["stop", "length", "stop_string"]
    text: str
    kept: int
    rest: str


class TextStream:
    """Collects one reply's tokens.

    Args:
        tokenizer: the model's; special tokens have no text.
        stop_ids: tokens that end the reply.
        stop_strings: texts that end the reply and are not part of it.
        max_new_tokens: the reply ends after so many tokens.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stop_ids: Collection[int],
        stop_strings: Sequence[str] = (),
        max_new_tokens: int,
    ) -> None:
        self._detokenizer = detokenizer(tokenizer)
        self._stop_ids = frozenset(stop_ids)
        self._stops = tuple(stop_strings)
        self._max_new_tokens = max_new_tokens
        self._shown: list[str] = []
        self._shown_length = 0
        self._held = ""  # text after the shown that may begin a stop string
        self._whole: list[int] = [0]  # how many tokens, wherever their text ends with a whole character
        self._whole_at: list[int] = [0]  # and the length of that text
        self.sampled = 0
        self.end: StreamEnd | None = None

    def push(self, token_id: int) -> str:
        """Take a sampled token and give the text that may now be shown; sets ``end`` if it was the last.

        Raises:
            InputError: the reply has already ended.
        """
        if self.end is not None:
            raise InputError(f"the reply has ended ({self.end.finish_reason}); no token can follow.")
        if token_id in self._stop_ids:
            return self._finish("stop", self.sampled)
        self.sampled += 1
        self._held += self._detokenizer.push(token_id)
        if self._detokenizer.whole:
            self._whole.append(self.sampled)
            self._whole_at.append(self._shown_length + len(self._held))
        at = self._find_stop()
        if at is not None:
            return self._cut(at)
        if self.sampled >= self._max_new_tokens:
            return self._finish("length", self.sampled)
        return self._show(len(self._held) - self._may_begin_stop())

    def _finish(self, reason: Literal["stop", "length"], kept: int) -> str:
        """The end without a stop string: everything held is shown, unless flushing completes one."""
        self._held += self._detokenizer.flush()
        at = self._find_stop()
        if at is not None:
            return self._cut(at)
        piece = self._show(len(self._held))
        self.end = StreamEnd(reason, "".join(self._shown), kept, "")
        return piece

    def _cut(self, at: int) -> str:
        """The end at a stop string that begins at ``at`` in the held text."""
        piece = self._show(at)
        last = bisect_right(self._whole_at, self._shown_length) - 1
        text = "".join(self._shown)
        self.end = StreamEnd("stop_string", text, self._whole[last], text[self._whole_at[last] :])
        self._held = ""
        return piece

    def _show(self, length: int) -> str:
        piece, self._held = self._held[:length], self._held[length:]
        if piece:
            self._shown.append(piece)
            self._shown_length += length
        return piece

    def _find_stop(self) -> int | None:
        """Where the first stop string begins in the held text."""
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        return min(found, default=None)

    def _may_begin_stop(self) -> int:
        """Length of the longest end of the held text that a stop string begins with."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if self._stops and any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0

"""Neutral text before and behind a history, so that no evidence lies in the sinks or the window when asked.

The text has no digits, no names and no questions, so it answers nothing and hides nothing. It counts as part of a
history's length. Knows tokens only by the counter it is given.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from agentmem import MemoryConfig
from benchmarks.recall.items import History, Piece

_SUBJECTS = (
    "the old orchard|a narrow lane|the far meadow|the stone bridge|a quiet pond|the upper field|the mill stream|"
    "a row of poplars|the chalk hill|a wooden fence|the wet grass|a pale cloud|the morning mist|a low wall"
).split("|")
_DOINGS = (
    "lies in the shade|turns silver after the rain|looks smaller in the evening|keeps the warmth of the day|"
    "leads down to the water|is covered with moss|smells of hay|moves a little in the wind|rests under the snow|"
    "shines when the sun comes out|fades into the distance|holds still for a while"
).split("|")
_TIMES = (
    "in early spring|before the first frost|on most afternoons|long after sunset|when the air is clear|"
    "at the end of the season|while the swallows gather|as it has for years|without any sound"
).split("|")
SPARE = 8
"""Tokens more than needed at each end, since a template may add or merge some."""


@dataclass(frozen=True)
class Frame:
    """What stands before and behind every history of a run."""

    head: Piece
    tail: Piece
    tokens: int
    """Tokens of both."""

    def around(self, history: History, tokens: int) -> History:
        """The history within the frame; ``tokens`` is the length asked for, the frame included."""
        return replace(history, tokens=tokens, pieces=(self.head, *history.pieces, self.tail))

    def left(self, tokens: int) -> int:
        """How many tokens of a length remain for the task: at least half of it, even where the frame is longer."""
        return max(tokens - self.tokens, tokens // 2)


def frame_for(config: MemoryConfig, count_tokens: Callable[[str], int]) -> Frame:
    """A head longer than the sinks, and a tail longer than any window an arm of this budget can have."""
    head = _text(config.sink_tokens + SPARE, 1, count_tokens)
    tail = _text(config.budget + config.block_tokens + SPARE, 2, count_tokens)
    return Frame(Piece(head), Piece(tail), count_tokens(head) + count_tokens(tail))


def _text(tokens: int, seed: int, count_tokens: Callable[[str], int]) -> str:
    """The fewest sentences that have at least ``tokens`` tokens."""
    source, parts = _sentences(seed), [""]
    parts[0] = next(source)
    while count_tokens(" ".join(parts)) < tokens:
        parts.extend(next(source) for _ in range(max(1, len(parts) // 8)))
    return " ".join(parts)


def _sentences(seed: int) -> Iterator[str]:
    chance = random.Random(seed)  # noqa: S311  # a text, not a secret
    while True:
        words = f"{chance.choice(_SUBJECTS)} {chance.choice(_DOINGS)} {chance.choice(_TIMES)}."
        yield words[0].upper() + words[1:]

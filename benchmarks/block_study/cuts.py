"""Where blocks begin: on a grid, at messages, at sentences, at surprises. Integers and strings alone.

Tokens are counted from the first evictable one; every list begins with 0. Knows no attention.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

SURPRISE_WINDOW = 64
"""How many tokens before one say what is usual."""
GAMMA = 1.0
"""How many standard deviations above the usual a token is a surprise."""
ENDS = (".", "!", "?")


def cut(count: int, wanted: Collection[int], least: int, most: int) -> list[int]:
    """Starts of blocks of ``least`` to ``most`` tokens that begin at wanted tokens where they can.

    The last block may be shorter than ``least``.
    """
    starts = [0] if count else []
    for token in range(1, count):
        held = token - starts[-1]
        if held >= most or (held >= least and token in wanted):
            starts.append(token)
    return starts


def on_grid(count: int, size: int) -> list[int]:
    """Blocks of one size; the last may be shorter."""
    return list(range(0, count, size))


def at_messages(count: int, bounds: Collection[int], size: int) -> list[int]:
    """A block begins where a message does; long messages are cut after ``size`` tokens."""
    return cut(count, frozenset(bounds), 1, size)


def at_sentences(texts: Sequence[str], least: int, most: int) -> list[int]:
    """A block begins behind a token whose text ends a sentence (. ! ?) or holds a line end."""
    ends = {token + 1 for token, text in enumerate(texts) if "\n" in text or text.rstrip().endswith(ENDS)}
    return cut(len(texts), ends, least, most)


def at_surprises(
    nll: Sequence[float], first: int, count: int, *, least: int, most: int, gamma: float = GAMMA
) -> list[int]:
    """EM-LLM's surprise (arXiv 2407.09450 §3.2): a block ends before a token the model did not expect.

    A token is a surprise where its negative log-likelihood exceeds mean + gamma * standard deviation of those of
    the ``SURPRISE_WINDOW`` tokens before it.

    Args:
        nll: of every token of the log, NaN where nothing foretold it.
        first: the log's position of token 0.
        count: tokens to cut.
        least: tokens of the shortest block; a nearer surprise is passed over, as in the released code.
        most: tokens of the longest block.
        gamma: 1 in most of the paper's runs.
    """
    return cut(count, {token - first for token in surprises(nll, gamma)}, least, most)


def surprises(nll: Sequence[float], gamma: float = GAMMA) -> list[int]:
    """The tokens that are surprises; see :func:`at_surprises`."""
    values = np.nan_to_num(np.asarray(nll, dtype=np.float64))
    found = []
    for token in range(2, len(values)):
        before = values[max(0, token - SURPRISE_WINDOW) : token]
        if values[token] > before.mean() + gamma * before.std():
            found.append(token)
    return found

"""Past messages ranked by the words they share with a question: Okapi BM25, from their text alone.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with the idf that is never
negative. Words as in ``AgentMemory.search``: case and accents do not count. Unlike there, one shared word is enough.
Needs no model, no index and no extra memory; costs one reading of all texts for each question.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from agentmem import HistoryTurn
from agentmem.store.search import text_of, words_of

K1 = 1.2
"""How soon repeating a word stops to count."""
B = 0.75
"""How much long texts are held back: 0 not at all, 1 in full."""


@dataclass(frozen=True)
class Found:
    """A past message and how well it fits."""

    turn: HistoryTurn
    role: str
    text: str
    score: float
    """BM25; larger is better, above 0. Comparable within one search only."""


def best_messages(
    turns: Sequence[HistoryTurn], query: str, *, limit: int, roles: Collection[str]
) -> list[Found]:
    """The messages that share words with the query, best first; of equals the newest.

    Args:
        turns: the history, oldest first; forgotten turns say nothing.
        query: a question or words; one that holds no word finds nothing.
        limit: at most so many.
        roles: whose messages are looked at.
    """
    messages = [
        (turn, str(message["role"]), text)
        for turn in turns
        if not turn.forgotten
        for message in turn.messages
        if message["role"] in roles and (text := text_of([message]).strip())
    ]
    scores = bm25([words_of(text) for _, _, text in messages], words_of(query))
    order = sorted(range(len(messages)), key=lambda at: (-scores[at], -at))
    return [Found(*messages[at], scores[at]) for at in order[:limit] if scores[at] > 0]


def bm25(texts: Sequence[Sequence[str]], query: Iterable[str]) -> list[float]:
    """The score of each text, given as words, for the query's words; each word of the query counts once."""
    wanted = dict.fromkeys(query)
    counts = [Counter(word for word in text if word in wanted) for text in texts]
    holding = Counter(word for count in counts for word in count)
    mean = sum(map(len, texts)) / len(texts) if texts else 0.0
    rare = {word: math.log(1 + (len(texts) - n + 0.5) / (n + 0.5)) for word, n in holding.items()}
    return [
        sum(
            rare[word] * n * (K1 + 1) / (n + K1 * (1 - B + B * len(text) / mean)) for word, n in count.items()
        )
        for text, count in zip(texts, counts, strict=True)
    ]

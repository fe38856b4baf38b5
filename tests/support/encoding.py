"""Ways to compute the K/V of a store's test turns anew: the seed of a turn is the first of its ids by 1,000."""

from __future__ import annotations

from collections.abc import Sequence

from agentmem.memory.source import DigestLog, TokenLog
from agentmem.store import Turn
from agentmem.store.mended import Encode
from support.stores import kv


def again(turn: Turn) -> Sequence[Encode]:
    """The way that gives what was committed: the seed of a turn is the first of its ids by 1,000."""
    return (encode,)


def encode(ids: Sequence[int], log: TokenLog, digests: DigestLog) -> None:
    """Append the K/V that belong to these ids."""
    log.append(*kv(ids[0] // 1000, len(ids)))

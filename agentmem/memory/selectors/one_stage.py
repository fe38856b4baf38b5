"""Blocks chosen by their digests alone: no key is read. Which digest, and how rows vote, is given.

The cheapest kind of rule, and the way most papers choose (see each digest and vote). Knows no log.
"""

from __future__ import annotations

from torch import Tensor

from agentmem.memory.selectors.base import QUERY_ROWS, BlockView, top_blocks
from agentmem.memory.selectors.by_digest import votes_by_digest
from agentmem.memory.selectors.digests import BlockDigest
from agentmem.memory.selectors.votes import Vote, group_sum


class OneStage:
    """Top-k of the votes that digests get."""

    digest_span = 1
    keeps_question = False
    candidate_factor = 0

    def __init__(
        self, name: str, digest: BlockDigest, *, vote: Vote = group_sum, query_rows: int = QUERY_ROWS
    ) -> None:
        self.name = name
        self.query_rows = query_rows
        self.digest_kind = digest.kind
        self.digest_rows = digest.rows
        self._digest = digest
        self._vote = vote

    def digest(self, keys_raw: Tensor, alive: Tensor | None) -> Tensor:
        """See :meth:`Selector.digest`."""
        return self._digest.make(keys_raw, alive)

    def choose(self, queries: Tensor, blocks: BlockView, num_chosen: int) -> Tensor:
        """See :meth:`Selector.choose`."""
        votes = votes_by_digest(queries, blocks, self._digest, self._vote, blocks.alive)
        return top_blocks(votes, num_chosen)

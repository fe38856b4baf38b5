"""What a selection rule is: it digests blocks, and chooses K of them per KV head for some queries.

One rule, one file. Top-k with its tie rule lives here, once. Knows no log and no buffers: keys of
candidate blocks are asked for through :class:`BlockView`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from agentmem_kernels import accelerated, best_blocks

QUERY_ROWS = 16
"""Query rows per head that a selection is usually made from; longer chunks are averaged down to this many."""


class BlockView(Protocol):
    """The blocks of one layer that a selection may choose from: ids 0 .. count - 1."""

    @property
    def layer(self) -> int:
        """Index of the layer."""
        ...

    @property
    def count(self) -> int:
        """N, how many blocks there are."""
        ...

    @property
    def digested(self) -> int:
        """N / S, how many digests there are; see :attr:`Selector.digest_span`."""
        ...

    @property
    def alive(self) -> Tensor | None:
        """(N,) bool, False for blocks whose tokens are all forgotten; None when all are alive."""
        ...

    def digests(self) -> Sequence[Tensor]:
        """Tensors (Hkv, n_i, R, D) whose concatenation along dim 1 holds all N / S digests."""
        ...

    def keys_raw(self, blocks: Tensor) -> Tensor:
        """Raw keys of chosen blocks, (Hkv, C) int64 -> (Hkv, C, L, D). Valid until the next call."""
        ...

    def dead_tokens(self, blocks: Tensor) -> Tensor | None:
        """(Hkv, C, L) bool, True for forgotten tokens; None when there are none."""
        ...

    def room(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Uninitialised reused memory on the device, valid until the same name is asked for again."""
        ...


class Selector(Protocol):
    """A rule for choosing blocks. Stateless; a rule with running state declares it in its own way."""

    @property
    def name(self) -> str:
        """The name it is chosen by in ``MemoryConfig.selector``."""
        ...

    @property
    def digest_kind(self) -> str:
        """Names what ``digest`` computes, so stored digests of another rule are not taken for it."""
        ...

    @property
    def digest_rows(self) -> int:
        """R, vectors per digest and KV head; stored as consecutive rows of the digest log."""
        ...

    @property
    def digest_span(self) -> int:
        """S, so many neighbouring blocks share a digest; the number of blocks is then a multiple of it."""
        ...

    @property
    def query_rows(self) -> int:
        """M, at most so many query rows per head it wants; a longer chunk is averaged down to them."""
        ...

    @property
    def keeps_question(self) -> bool:
        """Whether the newest rows that the turn read vote again when it chooses while decoding."""
        ...

    @property
    def candidate_factor(self) -> int:
        """It asks for the keys of at most so many times K blocks at once; buffers are made for that."""
        ...

    def digest(self, keys_raw: Tensor, alive: Tensor | None) -> Tensor:
        """Make n digests: keys (Hkv, n, S*L, D), alive (n, S*L) bool or None -> (Hkv, n, R, D)."""
        ...

    def choose(self, queries: Tensor, blocks: BlockView, num_chosen: int) -> Tensor:
        """Choose blocks per KV head.

        Args:
            queries: (Hkv, M, D) fp32, scaled, so that ``queries @ key_raw`` is an attention logit.
            blocks: what there is to choose from.
            num_chosen: K, at most the number of living blocks.

        Returns:
            (Hkv, K) int64, ascending in each row.
        """
        ...


def top_blocks(scores: Tensor, num_chosen: int) -> Tensor:
    """Ids of the K best per row, ascending; equal scores go to the newest block.

    ``torch.topk`` leaves ties undefined, and a tie broken by chance would make a resumed agent
    differ from one that never stopped. Scores (H, N), fp32 or whole numbers -> (H, K) int64.
    """
    H, N = scores.shape
    if num_chosen >= N:
        return torch.arange(N, device=scores.device).expand(H, N)
    if accelerated(scores):
        return best_blocks(scores, num_chosen)
    worst = torch.topk(scores, num_chosen, dim=-1).values[:, -1:]  # (H, 1)
    better = scores > worst
    tied = scores == worst
    room = num_chosen - better.sum(-1, keepdim=True)
    newest_first = tied.flip(-1).cumsum(-1).flip(-1)
    picked = better | (tied & (newest_first <= room))
    return picked.nonzero()[:, 1].view(H, num_chosen)

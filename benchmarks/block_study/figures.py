"""What a choice of tokens is worth and what it costs: coverage, whole evidence, blocks and bytes touched on disk.

Knows no way of choosing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from agentmem.store.pages import PAGE_SLOTS
from benchmarks.block_study.choosing import Blocks
from benchmarks.block_study.watching import Looked
from benchmarks.recall.places import EvidenceError, Ranges


@dataclass(frozen=True)
class Figures:
    """Of one choice for one question. Means are over layers and KV heads alike."""

    coverage: float
    """Part of the attention to evicted tokens that the chosen ones get."""
    evidence: float | None
    """How often a piece of evidence is chosen whole, to its last token; None where the question has none."""
    blocks: float
    """Distinct blocks that a layer's heads touch together, mean over layers."""
    disk_bytes: int
    """K and V of the pages that hold chosen tokens, all layers, each KV head's apart, as they are stored."""
    disk_bytes_together: int
    """The same if all KV heads of a token lay together."""


class Measured:
    """Measures choices for one question.

    Args:
        look: what the question attends to.
        first: the log's position of the first evictable token, which decides its page.
        itemsize: bytes of one stored number.
        evidence: token ranges of the log that hold the answer.

    Raises:
        EvidenceError: a range is not among the n tokens.
    """

    def __init__(self, look: Looked, first: int, itemsize: int, evidence: Ranges) -> None:
        n = look.mass.shape[1]
        self._look = look
        self._page = (torch.arange(n, device=look.mass.device) + first) // PAGE_SLOTS
        self._page_bytes = 2 * PAGE_SLOTS * itemsize * look.dims
        self._wanted = _relative(evidence, first, n)

    def figures(self, choice: Tensor, blocks: Blocks) -> Figures:
        """Of a choice (R, n) bool among such blocks."""
        pages = _touched(choice, self._page)
        together = self._by_layer(pages)[
            self._look.layers
        ]  # each head reads what any head of its layer wants
        return Figures(
            coverage=float((self._look.mass * choice).sum()) / len(choice),
            evidence=self._whole(choice),
            blocks=float(self._by_layer(_touched(choice, blocks.of)).sum(1).double().mean()),
            disk_bytes=int((pages.sum(1) * self._page_bytes).sum()),
            disk_bytes_together=int((together.sum(1) * self._page_bytes).sum()),
        )

    def _whole(self, choice: Tensor) -> float | None:
        if not self._wanted:
            return None
        return sum(float(choice[:, a:b].all(1).double().mean()) for a, b in self._wanted) / len(self._wanted)

    def _by_layer(self, flags: Tensor) -> Tensor:
        """Whether any row of a layer has it: (R, n) bool -> (layers, n) bool."""
        layers = self._look.layers
        counts = torch.zeros(int(layers.max()) + 1, flags.shape[1], device=flags.device)
        return counts.index_add_(0, layers, flags.float()) > 0


def _touched(choice: Tensor, groups: Tensor) -> Tensor:
    """Whether a row chose any token of a group: (R, n) bool and (n,) ids -> (R, groups) bool."""
    counts = torch.zeros(len(choice), int(groups[-1]) + 1, device=choice.device)
    return counts.index_add_(1, groups, choice.float()) > 0


def _relative(ranges: Ranges, first: int, n: int) -> Sequence[tuple[int, int]]:
    found = [(start - first, stop - first) for start, stop in ranges]
    for start, stop in found:
        if start < 0 or stop > n:
            raise EvidenceError(
                f"evidence [{start + first}, {stop + first}) is not among tokens {first} to {first + n}"
            )
    return found

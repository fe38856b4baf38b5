"""One turn's digests as its rule meets them: whole ones, on the device, copied there once.

Digests are mapped files on the CPU. Beside a GPU all of them would cross the bus at each chunk, which at 900,000
tokens is half of a chunk's time, so what was copied stays on the device for the turn. Knows no rule and no keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from agentmem.memory.selectors import Selector
from agentmem.memory.source import DigestLog

FEW = 16
"""Copied parts are joined when there are more: each part is a product of its own when blocks are scored."""


class DigestView:
    """A rule's digests in a log: R rows for S neighbouring blocks.

    Args:
        digests: where they are kept; it only grows during the turn, or is cut through :meth:`truncate`.
        selector: the rule; tells R and S.
        device: where they are wanted. On the CPU nothing is copied.
    """

    def __init__(self, digests: DigestLog, selector: Selector, device: torch.device) -> None:
        self.span = selector.digest_span
        self._digests = digests
        self._rows = selector.digest_rows
        self._device = device
        self._copies: dict[int, list[Tensor]] = {}

    def parts(self, layer: int, count: int) -> Sequence[Tensor]:
        """The first ``count`` digests as tensors (Hkv, n_i, R, D), in order."""
        stored = self._digests.parts(layer)
        there = stored if self._device.type == "cpu" else self._copied(layer, stored)
        return list(_first(_whole_digests(there, self._rows), count))

    def truncate(self, blocks: int) -> None:
        """Drop the digests of all blocks from ``blocks`` on."""
        self._digests.truncate(min(self._digests.count, blocks // self.span * self._rows))
        self._copies = {
            layer: list(_first(parts, self._digests.count)) for layer, parts in self._copies.items()
        }

    def _copied(self, layer: int, stored: Sequence[Tensor]) -> Sequence[Tensor]:
        """What is stored, on the device: what was copied before, and the rest."""
        copies = self._copies.setdefault(layer, [])
        behind = sum(part.shape[1] for part in copies)
        for part in stored:
            fresh = part[:, behind:]
            behind = max(0, behind - part.shape[1])
            if fresh.shape[1]:
                copies.append(fresh.to(self._device))
        if len(copies) > FEW:
            copies[:] = [torch.cat(copies, dim=1)]
        return copies


def _first(parts: Sequence[Tensor] | Iterator[Tensor], count: int) -> Iterator[Tensor]:
    """The first ``count`` along dim 1."""
    for part in parts:
        if count <= 0:
            return
        yield part[:, :count]
        count -= part.shape[1]


def _whole_digests(parts: Sequence[Tensor], rows: int) -> Iterator[Tensor]:
    """Digest rows (Hkv, r_i, D), cut anywhere, as parts of whole digests (Hkv, n_i, R, D).

    Nothing is copied, unless a cut goes through a digest.
    """
    torn: Tensor | None = None
    for part in parts:
        missing = 0 if torn is None else rows - torn.shape[1]
        if torn is not None:
            torn = torch.cat([torn, part[:, :missing]], dim=1)
            if torn.shape[1] < rows:
                continue
            yield torn[:, None]
        rest = part[:, missing:]
        whole = rest.shape[1] // rows
        if whole:
            yield rest[:, : whole * rows].unflatten(1, (whole, rows))
        torn = rest[:, whole * rows :] if rest.shape[1] % rows else None

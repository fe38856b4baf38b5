"""Block digests in memory: for stores that write no files, on top of whatever can be read.

Knows tensors only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from agentmem.memory.source import KVLayout, RuleStates
from agentmem.store.digest_log import DiskDigestLog, check_digests
from agentmem.store.rule_states import NoRuleStates


class VolatileDigestLog:
    """Digests that last as long as the object. ``base``, if given, is only read, and checked again for each turn.

    See :class:`agentmem.memory.source.DigestLog`. ``states``: where rules keep theirs; None: the base's, or
    nowhere.
    """

    def __init__(
        self, layout: KVLayout, base: DiskDigestLog | None = None, states: RuleStates | None = None
    ) -> None:
        self.states: RuleStates = states or (NoRuleStates() if base is None else base.states)
        self._layout = layout
        self._base = base
        self._base_count: int | None = None  # None: all that the base has
        self._kind: str | None = None
        self._own = _no_digests(layout)

    @property
    def kind(self) -> str | None:
        """Which digests are meant."""
        return self._kind

    @property
    def count(self) -> int:
        """Blocks whose digests can be read."""
        return self._from_base() + self._own[0].shape[1]

    def select(self, kind: str) -> None:
        """Say which digests are meant; another kind empties the log."""
        if self._base is not None and self._kind is None:
            self._base.select(
                kind
            )  # a reader's base: nothing of it is ever stored, and it is checked when counted
        elif kind != self._kind:
            self.truncate(0)
        elif self._base is not None:
            self._check(self._base)
        self._kind = kind

    def append(self, digests: Sequence[Tensor]) -> None:
        """Add n blocks after the last: per layer (Hkv, n, D), copied."""
        check_digests(self._layout, digests)
        self._base_count = self._from_base()
        self._own = [
            torch.cat((own, new.detach()), dim=1) for own, new in zip(self._own, digests, strict=True)
        ]

    def truncate(self, count: int) -> None:
        """Drop digests from block ``count`` on."""
        count = max(count, 0)
        self._base_count = min(self._from_base(), count)
        kept = max(count - self._base_count, 0)
        self._own = [own[:, :kept] for own in self._own]

    def parts(self, layer: int) -> Sequence[Tensor]:
        """The digests as tensors (Hkv, n_i, D), in order; they must not be written to."""
        parts, left = [], self._from_base()
        for part in self._base.parts(layer) if self._base is not None else ():
            if left > 0:
                parts.append(part[:, :left])
                left -= part.shape[1]
        if self._own[layer].shape[1]:
            parts.append(self._own[layer])
        return parts

    def _check(self, base: DiskDigestLog) -> None:
        """Its places may hold digests of other turns by now: the writer went back and on from there."""
        before = self._from_base()
        base.begin()
        if self._from_base() < before:
            self._own = _no_digests(self._layout)

    def _from_base(self) -> int:
        if self._base is None:
            return 0
        count = self._base.count
        return count if self._base_count is None else min(count, self._base_count)


def _no_digests(layout: KVLayout) -> list[Tensor]:
    return [torch.empty(heads, 0, dim, dtype=layout.dtype) for heads, dim in layout.layers]

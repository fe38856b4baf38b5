"""Whether a bound model gives each row of a pass the bits that the row gets alone.

A resumed agent goes on bit for bit as one that never stopped, whoever was served beside it; so passes are shared
without asking only where this holds. It is known when every matrix product is known to be so (see
:mod:`agentmem.engine.rows`) and the whole model, tried with a few tokens, is. Knows no agents.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem.engine.binding import Binding
from agentmem.engine.rows import ROWS, most_alike


class _Echo:
    """Attention that depends on its row alone, and on all that the layer hands over."""

    def attend(self, layer: int, q_raw: Tensor, k_raw: Tensor, v: Tensor, **how: object) -> Tensor:
        """See :class:`~agentmem.engine.attention.AttentionContext`."""
        group = q_raw.shape[1] // v.shape[1]
        return (q_raw + (k_raw + v).repeat_interleave(group, dim=1)) * 0.5


class Likeness:
    """What is known of one model. Used by one thread at a time."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self._most: int | None = None
        self._alone: list[Tensor] = []
        self._tried: set[int] = {1}

    @property
    def most(self) -> int:
        """Up to how many rows get the bits they get alone, as far as is known."""
        if self._most is None:
            self._most = most_alike(self._binding.model)
        return self._most

    def holds(self, rows: int) -> bool:
        """Whether so many rows get the bits they get alone; tried once for each number, which takes as many passes."""
        if rows <= self.most and rows not in self._tried:
            self._tried.add(rows)
            if not self._try(rows):
                self._most = 1
        return rows <= self.most

    def _try(self, rows: int) -> bool:
        """Compare a pass of so many rows with passes of one."""
        vocabulary = int(self._binding.model.config.get_text_config().vocab_size)
        ids = torch.linspace(1, vocabulary - 2, ROWS).long().unsqueeze(1).to(self._binding.device)
        echo = _Echo()
        for row in range(len(self._alone), rows):
            self._alone.append(self._binding.forward(ids[row : row + 1], echo)[0, -1].clone())
        together, _ = self._binding.forward_rows(ids[:rows], [echo] * rows)
        return all(torch.equal(one, both) for one, both in zip(self._alone, together, strict=False))

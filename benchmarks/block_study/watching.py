"""One question's attention to every evicted token, told by a witness in its turn.

Knows no blocks but the ones that the turn itself chose.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import BlockView
from benchmarks.recall.token_mass import mean_token_mass


@dataclass(frozen=True)
class Looked:
    """What one question's tokens attend to. R rows are (layer, KV head) pairs in order."""

    mass: Tensor
    """(R, n) fp32, the mean over the question's tokens; rows add up to 1."""
    chosen: Tensor
    """(R, n) bool, what the turn's own rule had chosen last."""
    layers: Tensor
    """(R,) int64, which of the layers that recall each row belongs to, counted from 0."""
    dims: Tensor
    """(R,) int64, D of each row."""

    def to(self, device: torch.device) -> Looked:
        """The same elsewhere."""
        return Looked(*(one.to(device) for one in (self.mass, self.chosen, self.layers, self.dims)))


class MassWitness:
    """Watches one turn; see :class:`agentmem.memory.witness.Witness`.

    Args:
        distance: tokens between a query and all keys when blocks are scored, as the rule of positions says.
    """

    def __init__(self, distance: int) -> None:
        self._distance = distance
        self._mass: dict[int, Tensor] = {}
        self._tokens: dict[int, int] = {}
        self._chosen: dict[int, Tensor] = {}
        self._dims: dict[int, int] = {}

    def saw(
        self, spec: LayerSpec, queries_raw: Tensor, scaling: float, chosen: Tensor, blocks: BlockView
    ) -> None:
        """Measure one layer for one chunk; a question of several chunks is the mean over all its tokens."""
        tokens = queries_raw.shape[1]
        mass = tokens * mean_token_mass(spec, queries_raw, scaling, blocks, self._distance)
        before = self._mass.get(spec.index)
        if before is not None:  # blocks may have left the window since
            mass[:, : before.shape[1]] += before
        self._mass[spec.index] = mass
        self._tokens[spec.index] = self._tokens.get(spec.index, 0) + tokens
        self._dims[spec.index] = spec.head_dim
        flags = torch.zeros(len(mass), blocks.count, dtype=torch.bool, device=mass.device)
        flags.scatter_(1, chosen, True)
        self._chosen[spec.index] = flags.repeat_interleave(mass.shape[1] // blocks.count, dim=1)

    def looked(self) -> Looked | None:
        """All that was seen, on the CPU; None as long as all is attended to."""
        if not self._mass:
            return None
        heads = {layer: len(mass) for layer, mass in self._mass.items()}
        return Looked(
            torch.cat([mass / self._tokens[layer] for layer, mass in self._mass.items()]).cpu(),
            torch.cat(list(self._chosen.values())).cpu(),
            torch.tensor([place for place, count in enumerate(heads.values()) for _ in range(count)]),
            torch.tensor([self._dims[layer] for layer, count in heads.items() for _ in range(count)]),
        )

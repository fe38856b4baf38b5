"""More blocks for the first layers, fewer for the others, as many in all.

Attention of the first two layers is spread wide (less than 10 % of it can be left out), so Quest (arXiv
2406.10774) and ArkVale (NeurIPS 2024) leave them as they are. Here they get up to twice the budget and the
other layers pay for it, so that the tokens seen in all layers together stay the same. Knows no log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors.base import Selector
from agentmem.memory.selectors.two_stage import TwoStage

FIRST_LAYERS = 2
"""How many layers get more."""


@runtime_checkable
class UnevenSelector(Selector, Protocol):
    """A rule under which layers recall different numbers of blocks."""

    def places(self, layers: int, num_chosen: int) -> Sequence[int]:
        """Blocks for each of the model's full layers, in order, where K is what each has by the budget."""
        ...


class FirstLayers(TwoStage):
    """The two-stage rule. Each layer behind the first two gives up at most half of its places."""

    def __init__(self) -> None:
        super().__init__("two-stage-first-layers")

    def places(self, layers: int, num_chosen: int) -> Sequence[int]:
        """See :meth:`UnevenSelector.places`; they add up to ``layers * num_chosen``."""
        others = max(0, layers - FIRST_LAYERS)
        more = min(num_chosen, others * (num_chosen // 2) // FIRST_LAYERS)
        if not more:
            return [num_chosen] * layers
        least, over = divmod(others * num_chosen - FIRST_LAYERS * more, others)
        return [num_chosen + more] * FIRST_LAYERS + [least + (layer < over) for layer in range(others)]


def places_by_layer(selector: Selector, specs: Sequence[LayerSpec], num_chosen: int) -> list[int]:
    """How many blocks each layer recalls, by index; 0 for layers with a window of their own."""
    full = [layer for layer, spec in enumerate(specs) if spec.window is None]
    shared: Sequence[int] = [num_chosen] * len(full)
    if isinstance(selector, UnevenSelector):
        shared = selector.places(len(full), num_chosen)
    places = dict(zip(full, shared, strict=True))
    return [places.get(layer, 0) for layer in range(len(specs))]

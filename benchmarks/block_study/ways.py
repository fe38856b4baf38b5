"""The ways that are compared: which blocks, whose set, how many places a layer. Each chooses by the exact masses.

To add one, write a function of a scene, its blocks and a budget, and name it in ``ways``. Knows no text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.block_study.choosing import (
    Blocks,
    best_split,
    densest,
    first_layers_twice,
    gains,
    shared,
    with_neighbours,
)

GRIDS = (8, 16, 32, 64, 128)
TOKENS, MESSAGES, SURPRISE = "single tokens", "messages", "surprise"
SENTENCES, LONG_SENTENCES = "sentences", "sentences of 24 or more"
PERCENTS = (10, 20, 30)


@dataclass(frozen=True)
class Scene:
    """One question: what there is to choose by, on one device."""

    mass: Tensor
    """(R, n)."""
    layers: Tensor
    """(R,), the layer of each row."""
    cuts: Mapping[str, Blocks]
    others: Tensor | None
    """(layers, N), the mean of what other questions gain by each place of the reference blocks; None: no others."""


@dataclass(frozen=True)
class Way:
    """One way of choosing, and the blocks it chooses among."""

    name: str
    cut: str
    choose: Callable[[Scene, Blocks, int], Tensor]
    """(scene, blocks, budget in tokens a row) -> (R, n) bool."""

    def __call__(self, scene: Scene, budget: int) -> Tensor:
        """Its choice, (R, n) bool. Raises ValueError when it spent another budget than the one given."""
        choice = self.choose(scene, scene.cuts[self.cut], budget)
        spent, given = int(choice.sum()), budget * len(choice)
        if spent != given:
            raise ValueError(
                f"{self.name} chose {spent} tokens of {given}: ways are compared at equal budget"
            )
        return choice


def grid(size: int) -> str:
    """The name of the blocks on a grid of that size."""
    return f"grid {size}"


def is_grid(name: str) -> bool:
    """Whether these blocks lie on a grid."""
    return name.startswith("grid ")


def grid_size(name: str) -> int:
    """Tokens in a block of that grid."""
    return int(name.removeprefix("grid "))


def ways(size: int) -> tuple[Way, ...]:
    """All ways; ``size`` is the reference grid's, which sets, splits and neighbours are tried on."""
    base = grid(size)
    return (
        Way(TOKENS, TOKENS, _each_head),
        *(Way(grid(n), grid(n), _each_head) for n in sorted({*GRIDS, size})),
        *(Way(name, name, _each_head) for name in (MESSAGES, SENTENCES, LONG_SENTENCES, SURPRISE)),
        *(
            Way(f"{base}, {percent} % to neighbours", base, partial(_neighbours, percent=percent))
            for percent in PERCENTS
        ),
        Way(f"{SURPRISE}, 30 % to neighbours", SURPRISE, partial(_neighbours, percent=30)),
        Way(f"{base}, one set a layer", base, _each_layer),
        Way(f"{base}, one set for all layers", base, _all_layers),
        Way(f"{LONG_SENTENCES}, one set a layer", LONG_SENTENCES, _each_layer),
        Way(f"{LONG_SENTENCES}, one set for all", LONG_SENTENCES, _all_layers),
        Way(f"{base}, first two layers twice", base, _first_layers),
        Way(f"{base}, other questions' split", base, _others_split),
        Way(f"{base}, best split over layers", base, _best_split),
    )


def split_over_layers(scene: Scene, blocks: Blocks, budget: int) -> Tensor:
    """Places of the best split for this very question: (layers,) int64."""
    falling = gains(blocks.sums(scene.mass), scene.layers)
    return best_split(falling, len(falling) * _places(blocks, budget))


def _each_head(scene: Scene, blocks: Blocks, budget: int) -> Tensor:
    return densest(blocks.sums(scene.mass), blocks, budget)


def _neighbours(scene: Scene, blocks: Blocks, budget: int, percent: int) -> Tensor:
    return with_neighbours(blocks.sums(scene.mass), blocks, budget, percent)


def _each_layer(scene: Scene, blocks: Blocks, budget: int) -> Tensor:
    return densest(shared(blocks.sums(scene.mass), scene.layers), blocks, budget)


def _all_layers(scene: Scene, blocks: Blocks, budget: int) -> Tensor:
    return densest(shared(blocks.sums(scene.mass), None), blocks, budget)


def _first_layers(scene: Scene, blocks: Blocks, budget: int) -> Tensor:
    layers = int(scene.layers.max()) + 1
    places = first_layers_twice(layers, _places(blocks, budget), len(blocks.sizes))
    return _split(scene, blocks, torch.tensor(places, device=scene.mass.device))


def _others_split(scene: Scene, blocks: Blocks, budget: int) -> Tensor:
    """Fitted on other questions, so that it could be fixed beforehand; even where there are none."""
    if scene.others is None:
        return _each_head(scene, blocks, budget)
    return _split(scene, blocks, best_split(scene.others, len(scene.others) * _places(blocks, budget)))


def _best_split(scene: Scene, blocks: Blocks, budget: int) -> Tensor:
    return _split(scene, blocks, split_over_layers(scene, blocks, budget))


def _split(scene: Scene, blocks: Blocks, places: Tensor) -> Tensor:
    return densest(blocks.sums(scene.mass), blocks, (places * blocks.sizes[0])[scene.layers])


def _places(blocks: Blocks, budget: int) -> int:
    return budget // int(blocks.sizes[0])

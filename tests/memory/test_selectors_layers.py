"""A rule that gives layers different budgets: as many blocks in all, and attention to exactly those."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.errors import ConfigError
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import BlockView, make_selector, places_by_layer
from agentmem.store import DiskHome, InMemoryHome
from support.session_agent import SessionAgent
from support.sparse_oracle import SparseOracle
from support.templates import tokenizer_for
from support.tiny_language_model import SMALL, plain_model
from support.tiny_models import prompt

NAME = "two-stage-first-layers"
CONFIG = MemoryConfig(
    sink_tokens=5,
    window_tokens=10,
    recall_tokens=16,
    block_tokens=4,
    chunk_tokens=24,
    reselect_every=4,
    dense_tokens=16,
    selector=NAME,
)
IDS: list[int] = prompt(120, seed=5)[0].tolist()
FULL, SLIDING = LayerSpec(0, 4, 2, 8, None, None), LayerSpec(0, 4, 2, 8, 7, None)


def model_of(trained: int) -> LanguageModel:
    """Four full layers, random weights."""
    return LanguageModel.wrap(plain_model(layers=4, trained=trained), tokenizer_for("chatml"), name="four")


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """With room enough."""
    return model_of(256)


class Counted:
    """Notes how many blocks each layer recalls."""

    def __init__(self) -> None:
        self.places: dict[int, int] = {}

    def saw(
        self, spec: LayerSpec, queries_raw: Tensor, scaling: float, chosen: Tensor, blocks: BlockView
    ) -> None:
        """The newest choice counts."""
        self.places[spec.index] = chosen.shape[1]


@pytest.mark.parametrize("num_chosen", [0, 1, 2, 3, 5, 16, 32])
@pytest.mark.parametrize("layers", [1, 2, 3, 4, 5, 6, 7, 24, 61])
def test_layers_recall_as_many_blocks_in_all(layers: int, num_chosen: int) -> None:
    """The first two at most twice as many, no other less than half, and none more than one before it."""
    places = places_by_layer(make_selector(NAME), [FULL] * layers, num_chosen)

    assert sum(places) == layers * num_chosen and places == sorted(places, reverse=True)
    assert max(places) <= 2 * num_chosen and 2 * min(places) >= num_chosen
    if layers >= 6 and not num_chosen % 2:
        assert places[:2] == [2 * num_chosen] * 2
    assert places_by_layer(make_selector("two-stage"), [FULL] * layers, num_chosen) == [num_chosen] * layers


def test_of_the_default_model_two_layers_of_24_get_twice_as_many() -> None:
    """64 blocks instead of 32; the 22 others have 29 or 30."""
    places = places_by_layer(make_selector(NAME), [FULL] * 24, 32)

    assert places == [64] * 2 + [30] * 2 + [29] * 20


def test_layers_with_a_window_of_their_own_are_not_counted() -> None:
    """The first two layers that recall at all get more."""
    places = places_by_layer(make_selector(NAME), [SLIDING, FULL] * 6, 4)

    assert places == [0, 8, 0, 8, 0, 2, 0, 2, 0, 2, 0, 2]


def test_turns_equal_the_slow_oracle(model: LanguageModel, tmp_path: Path) -> None:
    """Three turns on disk, resumed between, with steps past a reselection: logits within 1e-4."""
    agent = SessionAgent(model, DiskHome(tmp_path), CONFIG)
    oracle = SparseOracle(model.binding, CONFIG, places=[6, 6, 2, 2])
    for read, steps in [(IDS[:14], IDS[14:17]), (IDS[17:80], IDS[80:91]), (IDS[91:112], IDS[112:])]:
        found, wanted = agent.turn(read, steps), oracle.turn(read, steps)
        assert (found - wanted).abs().max() <= 1e-4
        agent = agent.reopened()

    other = SessionAgent(model, InMemoryHome(), CONFIG.changed(selector="two-stage"))
    mine = SessionAgent(model, InMemoryHome(), CONFIG)
    assert (other.turn(IDS) - mine.turn(IDS)).abs().max() > 1e-3, (
        "a layer with another budget would be noticed"
    )


@pytest.mark.parametrize("positions", ["ordered", "infllm"])
def test_every_placement_has_room_for_the_largest(positions: str, model: LanguageModel) -> None:
    """Layers recall what the rule gives them, whatever the past is laid out by."""
    config = CONFIG.changed(positions=positions, window_tokens=28)
    agent, witness = SessionAgent(model, InMemoryHome(), config), Counted()
    agent.store.begin()
    with model.turn(agent.store.log, agent.store.digests, config, witness) as session:
        logits = [session.read(IDS[:90]), *(session.step(token) for token in IDS[90:100])]
    agent.store.abort()

    assert witness.places == {0: 6, 1: 6, 2: 2, 3: 2}
    assert bool(torch.stack(logits).isfinite().all())


def test_a_layer_that_recalls_more_than_the_model_can_place_is_refused() -> None:
    """The default rule fits the positions there are; two layers with half as much again do not."""
    longest = SMALL.budget + SMALL.block_tokens - 1 + SMALL.chunk_tokens + SMALL.reselect_every
    tight = model_of(longest)

    tight.check(SMALL)
    with pytest.raises(ConfigError, match=str(longest + SMALL.recall_tokens // 2)):
        tight.check(SMALL.changed(selector=NAME))

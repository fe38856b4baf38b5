"""When a witness is told of a selection, and of which: the facts that measurements stand on."""

from __future__ import annotations

import torch
from torch import Tensor

from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import BlockView
from agentmem.store import InMemoryHome
from support.session_agent import SessionAgent
from support.tiny_language_model import SMALL, language_model
from support.tiny_models import MIXED_WINDOWS

CONFIG = SMALL.changed(chunk_tokens=32)


class Told:
    """Notes layer, query tokens, chosen blocks per head, and blocks there are."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int, int]] = []
        self.bounds: list[tuple[int, int]] = []

    def saw(
        self, spec: LayerSpec, queries_raw: Tensor, scaling: float, chosen: Tensor, blocks: BlockView
    ) -> None:
        """Ask for keys as a measurement does, all there are, and check the shapes on the way."""
        ids = torch.arange(blocks.count).expand(spec.num_kv_heads, -1)
        keys_raw = blocks.keys_raw(ids)
        assert keys_raw.shape == (spec.num_kv_heads, blocks.count, CONFIG.block_tokens, spec.head_dim)
        assert queries_raw.shape[0] == spec.num_q_heads and queries_raw.shape[2] == spec.head_dim
        assert chosen.dtype == torch.int64 and 0 < scaling < 1
        self.rows.append((spec.index, queries_raw.shape[1], chosen.shape[1], blocks.count))
        if chosen.numel():
            self.bounds.append((int(chosen.min()), int(chosen.max())))


def told(recall_tokens: int = 32, family: str = "llama", *, steps: int = 0, ids: int = 128) -> Told:
    """What a witness hears of one turn that reads ``ids`` tokens and takes ``steps`` steps."""
    model, witness = language_model(family), Told()
    agent = SessionAgent(model, InMemoryHome(), CONFIG.changed(recall_tokens=recall_tokens))
    agent.store.begin()
    with model.turn(agent.store.log, agent.store.digests, agent.config, witness) as session:
        session.read([5 + n % 40 for n in range(ids)])
        for _ in range(steps):
            session.step(7)
    agent.store.abort()
    return witness


def test_a_witness_hears_of_each_selection_once_per_layer() -> None:
    """Not while all is attended to; then of each chunk, with its own queries and all blocks behind the window."""
    found = told()

    assert found.rows == [(0, 32, 4, 4), (1, 32, 4, 4), (0, 32, 4, 8), (1, 32, 4, 8)]
    assert all(0 <= low and high < 8 for low, high in found.bounds)


def test_steps_that_hold_the_choice_are_not_told() -> None:
    """While decoding, only the steps that choose anew, each with its one query."""
    found = told(steps=2 * CONFIG.reselect_every + 1)

    assert [tokens for layer, tokens, _, _ in found.rows if layer == 0] == [32, 32, 1]


def test_where_nothing_is_recalled_the_choice_is_empty() -> None:
    """The blocks are there all the same: coverage of nothing is 0, not unknown."""
    found = told(recall_tokens=0)

    assert {chosen for _, _, chosen, _ in found.rows} == {0}
    assert max(count for _, _, _, count in found.rows) == 8


def test_layers_that_cannot_recall_are_not_told() -> None:
    """A model's own sliding layers keep their window alone."""
    family = MIXED_WINDOWS[0]
    full = {spec.index for spec in language_model(family).binding.layers if spec.window is None}

    assert {layer for layer, _, _, _ in told(family=family).rows} == full == {1, 3}

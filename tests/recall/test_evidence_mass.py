"""The attention that blocks would get, against a plain statement of it, token by token."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from agentmem.memory.blocks import BlockGrid
from agentmem.memory.buffers import Workspace, WorkspaceSize
from agentmem.memory.digest_view import DigestView
from agentmem.memory.log_blocks import BlocksState, LogBlocks
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import TwoStage
from agentmem.memory.source import KVLayout
from agentmem.store.in_memory_log import InMemoryTokenLog
from agentmem.store.volatile_digests import VolatileDigestLog
from benchmarks.recall import block_mass
from benchmarks.recall.block_mass import mean_block_mass
from support.evidence_oracle import block_shares, mean_over_rows
from support.tiny_language_model import language_model

GRID = BlockGrid(sinks=3, size=4)
CPU = torch.device("cpu")
BLOCKS = 13


class Case:
    """Random keys and queries of one layer of a model, with some tokens forgotten."""

    def __init__(self, spec: LayerSpec, dead: list[tuple[int, int]], tokens: int = 5) -> None:
        generator = torch.Generator().manual_seed(3)
        shape = (spec.num_kv_heads, 64, spec.head_dim)
        self.spec = spec
        self.keys, values = (torch.randn(shape, generator=generator) for _ in range(2))
        self.queries = 2 * torch.randn(spec.num_q_heads, tokens, spec.head_dim, generator=generator)
        self.dead = {token for start, stop in dead for token in range(start, stop)}
        layout = KVLayout(((spec.num_kv_heads, spec.head_dim),), torch.float32)
        log = InMemoryTokenLog(layout)
        log.load([([self.keys], [values])], dead)
        size = WorkspaceSize(dense=12, past=12, step=4, scratch=64 * GRID.size)
        workspace = Workspace((spec,), size, torch.float32, CPU)
        state = BlocksState(GRID, BLOCKS, dead, CPU)
        self.blocks = LogBlocks(
            spec, log, DigestView(VolatileDigestLog(layout), TwoStage(), CPU), workspace, state
        )

    def mass(self) -> Tensor:
        """What the benchmark says."""
        return mean_block_mass(self.spec, self.queries, 0.3, self.blocks, distance=17)

    def wanted(self) -> Tensor:
        """What the oracle says."""
        ranges = [range(*GRID.bounds(block)) for block in range(BLOCKS)]
        found = block_shares(self.spec, self.queries, self.keys, ranges, self.dead, scaling=0.3, distance=17)
        return torch.tensor([mean_over_rows(rows) for rows in found])


def spec_of(family: str) -> LayerSpec:
    """The first full layer of a tiny model of a family."""
    layers = language_model(family).binding.layers
    found = next(spec for spec in layers if spec.window is None)
    return LayerSpec(0, found.num_q_heads, found.num_kv_heads, found.head_dim, None, found.rotary)


@pytest.mark.parametrize("family", ["llama", "llama-yarn", "phi3", "smollm3"])
@pytest.mark.parametrize("dead", [[], [(9, 13), (20, 32)]], ids=["whole", "forgotten"])
def test_mass_is_each_tokens_own_softmax_averaged(family: str, dead: list[tuple[int, int]]) -> None:
    """Per KV head over its query heads and all tokens; forgotten tokens get none; scaled rotations too."""
    case = Case(spec_of(family), dead)

    assert torch.allclose(case.mass(), case.wanted(), atol=1e-5)
    assert torch.allclose(case.mass().sum(1), torch.ones(case.spec.num_kv_heads), atol=1e-5)


def test_a_layer_without_positions_is_measured_as_it_is() -> None:
    """No rotation, no scale."""
    case = Case(LayerSpec(0, 6, 2, 8, None, None), [(3, 11)])

    assert torch.allclose(case.mass(), case.wanted(), atol=1e-5)
    assert not case.mass()[:, :2].any()


@pytest.mark.parametrize("keys", [4, 9, 2048])
@pytest.mark.parametrize("tokens", [1, 2, 64])
def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch, tokens: int, keys: int) -> None:
    """However many query tokens and keys are scored at once."""
    case = Case(spec_of("llama"), [(9, 13)], tokens=7)
    whole = case.mass()
    monkeypatch.setattr(block_mass, "TILE_TOKENS", tokens)
    monkeypatch.setattr(block_mass, "TILE_KEYS", keys)

    assert torch.allclose(case.mass(), whole, atol=1e-6)


def test_nothing_alive_gets_nothing() -> None:
    """Zeros, not NaN."""
    case = Case(spec_of("llama"), [(3, 60)])

    assert case.mass().tolist() == [[0.0] * BLOCKS] * 2

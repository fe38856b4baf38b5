"""The attention that single tokens get, against a plain statement of it."""

from __future__ import annotations

import pytest
import torch

from agentmem.memory.blocks import BlockGrid
from agentmem.memory.buffers import Workspace, WorkspaceSize
from agentmem.memory.digest_view import DigestView
from agentmem.memory.log_blocks import BlocksState, LogBlocks
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import TwoStage
from agentmem.memory.source import KVLayout
from agentmem.store.in_memory_log import InMemoryTokenLog
from agentmem.store.volatile_digests import VolatileDigestLog
from benchmarks.recall import token_mass
from benchmarks.recall.block_mass import mean_block_mass
from benchmarks.recall.token_mass import mean_token_mass
from support.evidence_oracle import block_shares, mean_over_rows
from support.tiny_language_model import language_model

GRID = BlockGrid(sinks=3, size=4)
BLOCKS = 13
CPU = torch.device("cpu")


class Case:
    """Random keys and queries of one layer, with some tokens forgotten."""

    def __init__(self, spec: LayerSpec, dead: list[tuple[int, int]], blocks: int = BLOCKS) -> None:
        generator = torch.Generator().manual_seed(5)
        shape = (spec.num_kv_heads, 3 + 4 * blocks + 9, spec.head_dim)
        self.spec, self.count = spec, blocks
        self.keys, values = (torch.randn(shape, generator=generator) for _ in range(2))
        self.queries = 2 * torch.randn(spec.num_q_heads, 6, spec.head_dim, generator=generator)
        self.dead = {token for start, stop in dead for token in range(start, stop)}
        layout = KVLayout(((spec.num_kv_heads, spec.head_dim),), torch.float32)
        log = InMemoryTokenLog(layout)
        log.load([([self.keys], [values])], dead)
        size = WorkspaceSize(dense=12, past=12, step=4, scratch=64 * GRID.size)
        workspace = Workspace((spec,), size, torch.float32, CPU)
        state = BlocksState(GRID, blocks, dead, CPU)
        self.blocks = LogBlocks(
            spec, log, DigestView(VolatileDigestLog(layout), TwoStage(), CPU), workspace, state
        )

    def mass(self) -> torch.Tensor:
        """What the benchmark says."""
        return mean_token_mass(self.spec, self.queries, 0.3, self.blocks, 17)


def spec_of(family: str) -> LayerSpec:
    """The first layer of a tiny model of a family."""
    found = language_model(family).binding.layers[0]
    return LayerSpec(0, found.num_q_heads, found.num_kv_heads, found.head_dim, None, found.rotary)


@pytest.mark.parametrize("family", ["llama", "llama-yarn"])
@pytest.mark.parametrize("dead", [[], [(9, 13), (20, 32)]], ids=["whole", "forgotten"])
def test_mass_is_a_naive_softmax_over_tokens(family: str, dead: list[tuple[int, int]]) -> None:
    """Per KV head the mean over its query heads and all question tokens, one softmax each; forgotten tokens get none."""
    case = Case(spec_of(family), dead)
    tokens = [range(token, token + 1) for token in range(3, 3 + 4 * BLOCKS)]
    found = block_shares(case.spec, case.queries, case.keys, tokens, case.dead, scaling=0.3, distance=17)

    assert torch.allclose(case.mass(), torch.tensor([mean_over_rows(rows) for rows in found]), atol=1e-6)
    assert not case.mass()[:, [token - 3 for token in case.dead]].any()


def test_tokens_add_up_to_blocks() -> None:
    """More blocks than are asked for at once; each block's mass is its tokens'."""
    case = Case(spec_of("llama"), [(9, 13)], blocks=150)
    blocks = mean_block_mass(case.spec, case.queries, 0.3, case.blocks, 17)

    assert torch.allclose(case.mass().view(case.spec.num_kv_heads, 150, 4).sum(2), blocks, atol=1e-6)


@pytest.mark.parametrize("logits", [1, 300])
def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch, logits: int) -> None:
    """However few logits are held at once."""
    case = Case(spec_of("llama"), [(9, 13)])
    whole = case.mass()
    monkeypatch.setattr(token_mass, "TILE_LOGITS", logits)

    assert torch.allclose(case.mass(), whole, atol=1e-6)


def test_nothing_alive_gets_nothing() -> None:
    """Zeros, not NaN."""
    assert not Case(spec_of("llama"), [(3, 60)]).mass().any()

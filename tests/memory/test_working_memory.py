"""The working set of one turn: when it is laid out anew, what it holds, what leaves with a truncation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from agentmem.config import MemoryConfig
from agentmem.errors import ConfigError
from agentmem.memory.buffers import Workspace, WorkspaceSize
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import TwoStage
from agentmem.memory.source import KVLayout
from agentmem.memory.working_memory import WorkingMemory
from agentmem.store.in_memory_log import InMemoryTokenLog
from agentmem.store.volatile_digests import VolatileDigestLog

CONFIG = MemoryConfig(
    sink_tokens=4, window_tokens=8, recall_tokens=8, block_tokens=4, chunk_tokens=6, reselect_every=5
)
SPECS = (LayerSpec(0, 4, 2, 8, None, None), LayerSpec(1, 4, 2, 8, 7, None))
LAYOUT = KVLayout(tuple((spec.num_kv_heads, spec.head_dim) for spec in SPECS), torch.float32)


class Turn:
    """A turn over random projections; counts the keys each layer attends to."""

    def __init__(self, config: MemoryConfig = CONFIG, workspace: Workspace | None = None) -> None:
        size = WorkspaceSize.of(config, TwoStage())
        self.log = InMemoryTokenLog(LAYOUT)
        self.log.begin()
        self.digests = VolatileDigestLog(LAYOUT)
        self.workspace = workspace or Workspace(SPECS, size, torch.float32, torch.device("cpu"))
        self.memory = WorkingMemory(SPECS, self.log, self.digests, config, TwoStage(), self.workspace)
        self._generator = torch.Generator().manual_seed(0)

    def forward(self, tokens: int, *, decoding: bool = False, measure: bool = False) -> list[int]:
        """One chunk or step through both layers; how many places each buffer holds then."""
        self.memory.begin(tokens, decoding=decoding, measure=measure)
        for layer in range(len(SPECS)):
            q = torch.randn(1, 4, tokens, 8, generator=self._generator)
            k, v = (torch.randn(1, 2, tokens, 8, generator=self._generator) for _ in range(2))
            out = self.memory.attend(layer, q, k, v, scaling=0.35, softcap=None, sinks=None)
            assert out.shape == q.shape and bool(out.isfinite().all())
        self.memory.end()
        return [buffer.used for buffer in self.workspace.layers]


@pytest.fixture
def turn() -> Iterator[Turn]:
    """A turn of a new agent."""
    return Turn()


def test_a_set_that_holds_everything_is_only_added_to(turn: Turn) -> None:
    """Within the dense limit chunks and steps follow each other in the buffer, and nothing is chosen."""
    assert [turn.forward(n)[0] for n in (6, 6, 3)] == [6, 12, 15]
    assert [turn.forward(1, decoding=True)[0] for _ in range(5)] == [16, 17, 18, 19, 20]
    assert turn.memory.selections == 0
    assert CONFIG.dense_limit == 20


def test_beyond_the_limit_each_chunk_chooses_and_steps_hold(turn: Turn) -> None:
    """One choice per chunk; held for ``reselect_every`` steps, then one more; never more than the budget."""
    for _ in range(6):
        turn.forward(6)
    chosen = turn.memory.selections
    assert chosen == 3, "the first three chunks end within 20 tokens"
    used = [turn.forward(1, decoding=True)[0] for _ in range(12)]
    assert turn.memory.selections - chosen == 2, "after the chunk's five steps, and five later"
    longest = CONFIG.budget + CONFIG.block_tokens - 1 + CONFIG.chunk_tokens + CONFIG.reselect_every
    assert max(used) <= longest <= turn.workspace.size.capacity(SPECS[0])


def test_sliding_layers_keep_their_window_alone() -> None:
    """Laid out anew with window - 1 tokens of the past, whatever the full layers recall."""
    turn = Turn(CONFIG.changed(dense_tokens=0))
    assert [turn.forward(6)[1] for _ in range(5)] == [6, 12, 12, 12, 12]


def test_the_window_starts_on_the_block_grid(turn: Turn) -> None:
    """So that every token of the past is a sink, in a whole block, or in the window."""
    turn.forward(6)
    for size in (6, 6, 6, 5, 3, 1, 2, 6):
        before = turn.memory.length
        used, _ = turn.forward(size)
        if before + size > CONFIG.dense_limit:
            blocks = (before - CONFIG.window_tokens - CONFIG.sink_tokens) // CONFIG.block_tokens
            window = before - CONFIG.sink_tokens - blocks * CONFIG.block_tokens
            assert CONFIG.window_tokens <= window < CONFIG.window_tokens + CONFIG.block_tokens
            assert used == CONFIG.sink_tokens + min(blocks, 2) * CONFIG.block_tokens + window + size


def test_every_token_reaches_the_log_once_and_in_order(turn: Turn) -> None:
    """Staged while held, written before they are chosen from; length counts them all along."""
    total = 0
    for size in (6, 6, 6, 6, *[1] * 17):
        turn.forward(size, decoding=size == 1)
        total += size
        assert turn.memory.length == total
    turn.memory.flush()
    turn.memory.flush()
    assert turn.log.length == total
    keys_raw = torch.empty(2, total, 8)
    turn.log.read(0, 0, total, keys_raw, None)
    assert len(torch.unique(keys_raw, dim=1)[0]) == total


def test_truncating_drops_tokens_and_their_digests(turn: Turn) -> None:
    """What is left are digests of whole blocks before the cut; the next chunk lays out anew."""
    for _ in range(8):
        turn.forward(6)
    assert turn.digests.count > 5
    turn.memory.truncate(26)
    assert (turn.memory.length, turn.log.length) == (26, 26)
    assert turn.digests.count == (26 - CONFIG.sink_tokens) // CONFIG.block_tokens
    turn.forward(6)
    assert turn.memory.length == 32
    turn.memory.truncate(2)
    assert turn.digests.count == 0


def test_shares_are_measured_when_asked_and_at_each_choice_of_a_reply(turn: Turn) -> None:
    """Not while a text is read; with measure for that chunk; by itself when steps choose anew."""
    for _ in range(6):
        turn.forward(6)
    assert turn.memory.shares.recalled_mass == 0
    turn.forward(6, measure=True)
    question = turn.memory.shares.recalled_mass
    assert 0 < question < 1
    for _ in range(5):
        turn.forward(1, decoding=True)
    assert turn.memory.shares.recalled_mass == question
    turn.forward(1, decoding=True)
    assert turn.memory.shares.recalled_mass != question


def test_a_chunk_larger_than_agreed_is_refused(turn: Turn) -> None:
    """ConfigError, before anything is staged."""
    with pytest.raises(ConfigError, match="chunk_tokens=6"):
        turn.memory.begin(7)
    assert turn.memory.length == 0


def test_what_a_workspace_held_before_does_not_matter(turn: Turn) -> None:
    """A second turn in used buffers does what one in fresh buffers does."""
    fresh = Turn()
    for _ in range(7):
        turn.forward(6)
    again = Turn(workspace=turn.workspace)
    for one in (fresh, again):
        for size in (6, 6, 6, 6, 1, 1):
            one.forward(size, decoding=size == 1)
        one.memory.flush()
    for first, second in zip(fresh.workspace.layers, again.workspace.layers, strict=True):
        assert first.used == second.used
        assert torch.equal(first.keys_rot[:, : first.used], second.keys_rot[:, : first.used])
        assert torch.equal(first.values[:, : first.used], second.values[:, : first.used])


def test_no_recall_is_sinks_and_window_alone() -> None:
    """recall_tokens=0: nothing is scored, digested or recalled."""
    turn = Turn(CONFIG.changed(recall_tokens=0, dense_tokens=0))
    for _ in range(6):
        used, _ = turn.forward(6)
    assert used <= CONFIG.sink_tokens + CONFIG.window_tokens + CONFIG.block_tokens - 1 + 6
    assert (turn.memory.selections, turn.digests.count) == (0, 0)

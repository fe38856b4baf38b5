"""Blocks as a rule sees them: keys and digests through the log, forgotten tokens left out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from agentmem.memory.blocks import BlockGrid
from agentmem.memory.buffers import Workspace, WorkspaceSize
from agentmem.memory.digest_view import DigestView
from agentmem.memory.log_blocks import BlocksState, LogBlocks, digest_missing
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import TwoStage, make_selector
from agentmem.memory.selectors.mean_key import MeanKey
from agentmem.memory.selectors.sub_blocks import SubBlockMeans
from agentmem.memory.source import KVLayout
from agentmem.store.digest_log import DigestState, DiskDigestLog
from agentmem.store.in_memory_log import InMemoryTokenLog
from agentmem.store.volatile_digests import VolatileDigestLog

GRID = BlockGrid(sinks=3, size=4)
LAYOUT = KVLayout(((2, 8), (1, 8)), torch.float32)
SPECS = (LayerSpec(0, 4, 2, 8, None, None), LayerSpec(1, 4, 1, 8, 6, None))
CPU = torch.device("cpu")


def log_of(tokens: int, dead: list[tuple[int, int]]) -> tuple[InMemoryTokenLog, list[Tensor]]:
    """A committed log of random K/V with forgotten ranges (their K/V read as zeros), and its keys."""
    generator = torch.Generator().manual_seed(0)
    keys = [torch.randn(heads, tokens, dim, generator=generator) for heads, dim in LAYOUT.layers]
    values = [torch.randn(heads, tokens, dim, generator=generator) for heads, dim in LAYOUT.layers]
    for start, stop in dead:
        for tensor in (*keys, *values):
            tensor[:, start:stop] = 0
    log = InMemoryTokenLog(LAYOUT)
    log.load([(keys, values)], dead)
    return log, keys


def workspace() -> Workspace:
    """Buffers for tiny blocks, digested a few at a time."""
    return Workspace(SPECS, WorkspaceSize(dense=12, past=12, step=4, scratch=32), torch.float32, CPU)


def test_digests_are_means_of_living_keys_however_many_are_made_at_once() -> None:
    """In one go, in steps, or batch by batch: the same bits; sliding layers get none, and are never read."""
    dead = [(5, 9), (20, 31)]
    log, keys = log_of(60, dead)
    gone = {t for start, stop in dead for t in range(start, stop)}
    results = []
    for steps in ((14,), (1, 2, 7, 14), tuple(range(15))):
        digests = VolatileDigestLog(LAYOUT)
        digests.select("mean")
        made = sum(digest_missing(n, GRID, TwoStage(), SPECS, log, digests, workspace()) for n in steps)
        assert made == digests.count == 14
        results.append([torch.cat(list(digests.parts(layer)), dim=1) for layer in (0, 1)])

    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))
    full, sliding = results[0]
    assert not sliding.any()
    for block in range(14):
        living = [t for t in range(*GRID.bounds(block)) if t not in gone]
        wanted = keys[0][:, living].mean(1) if living else torch.zeros(2, 8)
        assert torch.allclose(full[:, block], wanted, atol=1e-6)


def test_keys_and_dead_tokens_are_those_of_the_chosen_blocks() -> None:
    """Per head its own blocks, in the order asked for."""
    log, keys = log_of(60, [(5, 9)])
    state = BlocksState(GRID, 10, log.dead, CPU)
    blocks = LogBlocks(
        SPECS[0], log, DigestView(VolatileDigestLog(LAYOUT), TwoStage(), CPU), workspace(), state
    )
    chosen = torch.tensor([[4, 0, 1], [2, 9, 0]])
    found, dead = blocks.keys_raw(chosen), blocks.dead_tokens(chosen)

    assert dead is not None and dead.shape == (2, 3, 4)
    for head in range(2):
        for place, block in enumerate(chosen[head].tolist()):
            start, stop = GRID.bounds(block)
            assert torch.equal(found[head, place], keys[0][head, start:stop])
            assert dead[head, place].tolist() == [5 <= token < 9 for token in range(start, stop)]
    assert blocks.count == 10


@pytest.mark.parametrize(
    ("dead", "gone"),
    [
        ([], []),
        ([(3, 7)], [0]),
        ([(2, 8)], [0]),
        ([(4, 10)], []),
        ([(3, 15), (19, 23)], [0, 1, 2, 4]),
        ([(0, 60)], list(range(10))),
    ],
)
def test_blocks_whose_tokens_are_all_forgotten_are_not_alive(
    dead: list[tuple[int, int]], gone: list[int]
) -> None:
    """Half forgotten ones are; the living are counted."""
    state = BlocksState(GRID, 10, dead, CPU)

    assert state.living == 10 - len(gone)
    assert (state.alive is None) == (not gone)
    if state.alive is not None:
        assert [block for block in range(10) if not state.alive[block]] == gone


def test_digests_beyond_the_count_are_not_shown() -> None:
    """A rule never sees a block that is still in the window, though its digest may be there."""
    log, _ = log_of(60, [])
    digests = VolatileDigestLog(LAYOUT)
    digests.select("mean")
    digest_missing(12, GRID, TwoStage(), SPECS, log, digests, workspace())
    view = DigestView(digests, TwoStage(), CPU)
    blocks = LogBlocks(SPECS[0], log, view, workspace(), BlocksState(GRID, 7, [], CPU))

    shown = torch.cat(list(blocks.digests()), dim=1)
    assert torch.equal(shown, torch.cat(list(digests.parts(0)), dim=1)[:, :7, None])
    assert blocks.alive is None and blocks.dead_tokens(torch.zeros(2, 1, dtype=torch.int64)) is None


@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("file", [1, 3, 4, 64])
def test_rows_cut_between_files_are_put_together(rows: int, file: int, tmp_path: Path) -> None:
    """Blocks of several rows, whole and in order, however many rows a file holds; most are not copied."""
    digests = DiskDigestLog(tmp_path, LAYOUT, file, "ada", DigestState(None, 0, {}))
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(heads, 10 * rows, dim, generator=generator) for heads, dim in LAYOUT.layers]
    digests.append(made)
    view = DigestView(digests, TwoStage(digest=MeanKey() if rows == 1 else SubBlockMeans(rows)), CPU)
    for count in (10, 7, 1):
        parts = view.parts(0, count)
        wanted = made[0].unflatten(1, (10, rows))[:, :count]
        assert torch.equal(torch.cat(list(parts), dim=1), wanted)
    mapped = digests.parts(0)
    ends = [(part.data_ptr(), part.data_ptr() + part.shape[1] * 8 * 4) for part in mapped]
    copied = [part for part in parts if not any(a <= part.data_ptr() < b for a, b in ends)]
    assert not copied or file % rows
    digests.close()


def test_rows_that_damage_has_torn_are_made_again() -> None:
    """A log that ends in the middle of a block loses that block's rows, and gets all of them."""
    log, _ = log_of(60, [])
    selector = make_selector("sub-means-4")
    whole, torn = VolatileDigestLog(LAYOUT), VolatileDigestLog(LAYOUT)
    for digests in (whole, torn):
        digests.select(selector.digest_kind)
        assert digest_missing(12, GRID, selector, SPECS, log, digests, workspace()) == 12
    torn.truncate(4 * 5 + 3)

    assert digest_missing(12, GRID, selector, SPECS, log, torn, workspace()) == 7
    assert torn.count == 48
    for layer in (0, 1):
        assert torch.equal(*(torch.cat(list(digests.parts(layer)), dim=1) for digests in (whole, torn)))

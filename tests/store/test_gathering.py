"""What a gather takes from each segment: every row in its place, every page that holds one, and damage in any of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from agentmem import MemoryKey
from agentmem.errors import DamagedError
from agentmem.store import DiskHome
from agentmem.store.extents import BranchMap, Extent
from agentmem.store.gathering import plan_gather, spread
from agentmem.store.pages import PAGE_SLOTS
from support.stores import LAYOUT, add_turn, create, expected, kv

CAPACITY = 8 * PAGE_SLOTS
HEAD_ROWS = np.arange(2)[:, None] * CAPACITY


def branch(shift: int) -> BranchMap:
    """Three segments' slots in another order; tokens begin ``shift`` slots behind where pages do."""
    places = ((2, shift, 100), (0, 0, 3 * PAGE_SLOTS), (2, 100 + shift, 60), (1, 7, 90))
    start, extents = 0, []
    for segment, slot, count in places:
        extents.append(Extent(start, segment, slot, count))
        start += count
    return BranchMap(extents)


def blocks(starts: Sequence[Sequence[int]], width: int = PAGE_SLOTS) -> np.ndarray:
    """Tokens of the runs that begin at ``starts``, per head."""
    return (np.array(starts)[..., None] + np.arange(width)).reshape(len(starts), -1)


@pytest.mark.parametrize("shift", [0, 5])
@pytest.mark.parametrize(
    "tokens",
    [
        blocks([[0, 32, 200], [64, 100, 300]]),  # runs; some go across an extent's end
        blocks([[100, 132, 164], [0, 100, 132]]),  # runs that lie within extents
        blocks([[0, 256, 96], [32, 288, 48]], 16),  # runs of half a page's length
        blocks([[27, 256], [40, 187]], 16),  # such runs, across pages and an extent's end
        blocks([[0, 256], [32, 288]], 12),  # no runs
        np.array([[5, 5, 340, 2], [7, 180, 6, 181]]),  # in no order, one twice
    ],
)
def test_each_row_is_taken_once_and_its_pages_are_looked_at(shift: int, tokens: np.ndarray) -> None:
    """Columns of all parts are all columns; rows are where the map says; their pages are the parts' cells."""
    mapped = branch(shift)
    plan = plan_gather(mapped, tokens, HEAD_ROWS)
    segments, slots = mapped.locate(tokens)
    taken = np.zeros(tokens.shape, dtype=np.int64)
    for part in plan.parts:
        touched = set()
        for head, start, stop in part.runs:
            columns = slice(start * plan.width, stop * plan.width)
            rows = spread(plan.rows[head, start:stop], plan.width)
            assert (segments[head, columns] == part.segment).all()
            assert np.array_equal(rows, (slots + HEAD_ROWS)[head, columns])
            taken[head, columns] += 1
            touched |= {*(rows // PAGE_SLOTS).tolist()}
        assert touched == {*part.cells}

    assert (taken == 1).all()
    assert len({part.segment for part in plan.parts}) == len(plan.parts)


@pytest.mark.parametrize("width", [PAGE_SLOTS, PAGE_SLOTS // 2, 1])
@pytest.mark.parametrize("first", [PAGE_SLOTS, PAGE_SLOTS - 9])
@pytest.mark.parametrize("kind", ["plain", "encrypted"])
def test_blocks_from_many_segments_arrive_whole(tmp_path: Path, first: int, width: int, kind: str) -> None:
    """Blocks that lie on pages, and such that lie across them, are what was written; some by the open turn."""
    key = MemoryKey.generate() if kind == "encrypted" else None
    home = DiskHome(tmp_path, segment_tokens=2 * PAGE_SLOTS, key=key)
    made = create(home)
    turns = [(0, first), *((seed, 2 * PAGE_SLOTS) for seed in range(1, 6))]
    for turn in turns[:-2]:
        add_turn(made, *turn)
    made.close()
    store = home.open("ada")
    add_turn(store, *turns[-2])  # sealed by this opening, and not let go yet
    store.begin()
    store.log.append(*kv(*turns[-1]))
    heads, dim = LAYOUT.layers[0]
    starts = [0, first, first + 96, first + 160, first + 200, first + 250, first + 280]
    tokens = torch.from_numpy(blocks([starts] * heads, width))
    tokens[-1] += 3
    keys, values = torch.empty(2, heads, tokens.shape[1], dim)
    store.log.gather(0, tokens, keys, values)
    wanted = expected(*turns)
    for found, there in zip((keys, values), wanted[:2], strict=True):
        assert torch.equal(found, there.gather(1, tokens[..., None].expand(-1, -1, dim)))
    store.close()


@pytest.mark.parametrize("width", [PAGE_SLOTS, PAGE_SLOTS // 2])
@pytest.mark.parametrize("at", [0, 40, 127])
def test_a_changed_byte_anywhere_in_a_block_is_noticed(tmp_path: Path, at: int, width: int) -> None:
    """A block across two pages is refused when a byte of either changed, also outside of the block; in each turn again."""
    home = DiskHome(tmp_path, segment_tokens=8 * PAGE_SLOTS)
    made = create(home)
    add_turn(made, 1, 5 * PAGE_SLOTS)
    made.close()
    store = home.open("ada")
    heads, dim = LAYOUT.layers[0]
    tokens = torch.from_numpy(blocks([[20, 90]] * heads, width))
    out = torch.empty(heads, tokens.shape[1], dim)
    store.log.gather(0, tokens, out, None)
    path = next((home._folder("ada") / "kv").iterdir())
    with path.open("r+b") as file:
        file.seek(store._segments.spec.offset(0, heads - 1, at))
        file.write(b"\xff\xfe\xfd")
    store.begin()
    with pytest.raises(DamagedError, match=rf"keys\[{heads - 1}\]"):
        store.log.gather(0, tokens, out, None)
    with pytest.raises(DamagedError):
        store.log.gather(0, tokens, out, None)
    store.abort()
    store.close()

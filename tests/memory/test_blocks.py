"""The block grid: every token is in the sinks, in one block, or in the window."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentmem.memory.blocks import BlockGrid, clip_ranges

grids = st.builds(BlockGrid, sinks=st.integers(0, 100), size=st.integers(1, 64))


@given(grids, st.integers(0, 5000), st.integers(1, 2000))
def test_sinks_blocks_and_window_cover_the_past_without_overlap(
    grid: BlockGrid, length: int, window: int
) -> None:
    """The three parts are [0, sink_stop), whole blocks, [window_start, length), end to end."""
    split = grid.split(length, window)

    assert split.sink_stop == min(grid.sinks, length)
    assert split.window_start == min(length, split.sink_stop + split.blocks * grid.size)
    assert split.length == length
    if split.blocks:
        assert grid.bounds(0)[0] == split.sink_stop
        assert grid.bounds(split.blocks - 1)[1] == split.window_start
        assert window <= length - split.window_start < window + grid.size


@given(grids, st.integers(0, 3000), st.integers(1, 500), st.integers(1, 500))
def test_more_tokens_never_move_a_block(grid: BlockGrid, length: int, more: int, window: int) -> None:
    """Bounds depend on the block's number alone; a longer past only adds blocks."""
    assert grid.split(length, window).blocks <= grid.split(length + more, window).blocks


@given(grids, st.integers(0, 2000), st.integers(0, 2000))
def test_whole_inside_names_exactly_the_blocks_within_a_range(grid: BlockGrid, start: int, size: int) -> None:
    """A block is named if and only if both its bounds lie in the range."""
    stop = start + size
    named = set(grid.whole_inside(start, stop))
    expected = {
        block
        for block in range(stop // grid.size + 2)
        if start <= grid.bounds(block)[0] and grid.bounds(block)[1] <= stop
    }

    assert expected == named


def test_clip_ranges_keeps_only_the_parts_inside() -> None:
    """Ranges outside vanish, ranges across the edge are cut."""
    assert [(10, 12), (15, 20)] == clip_ranges([(0, 5), (8, 12), (15, 25), (30, 31)], 10, 20)

"""What new tokens may see: causal, windowed, and nothing that was forgotten."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmem.memory.buffers import LayerBuffer
from agentmem.memory.masks import Masks
from agentmem.memory.rotation import LayerSpec

CPU = torch.device("cpu")


def filled(used: int, window: int | None, dead: set[int] = frozenset()) -> LayerBuffer:  # type: ignore[assignment]
    """A buffer of 2 KV heads for 4 query heads whose first ``used`` places hold tokens."""
    buffer = LayerBuffer(LayerSpec(0, 4, 2, 8, window, None), 64, torch.float32, CPU)
    for place in range(used):
        if place in dead:
            buffer.mark_dead(torch.ones(1, 1, dtype=torch.bool))
        buffer.extend(torch.zeros(2, 1, 8), torch.zeros(2, 1, 8))
    return buffer


def seen_by(masks: Masks, buffer: LayerBuffer, new: int) -> list[set[int]]:
    """Which places each of the newest tokens sees."""
    part, mask = masks.visible(buffer, new, torch.float32)
    places = list(range(part.start, part.stop))
    if mask is None:
        return [set(places)] * new
    wide = mask.expand(4, new, len(places))
    assert bool((wide == wide[0]).all())
    assert set(wide.unique().tolist()) <= {0.0, float("-inf")}
    return [{p for p, value in zip(places, row.tolist(), strict=True) if value == 0.0} for row in wide[0]]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.one_of(st.none(), st.integers(1, 20)),
    st.sets(st.integers(0, 39)),
)
def test_each_token_sees_the_past_its_window_and_itself(
    used: int, new: int, window: int | None, dead: set[int]
) -> None:
    """Token t sees places <= t, within its window, that were not forgotten; new tokens never are."""
    new = min(new, used)
    gone = {place for place in dead if place < used - new}
    found = seen_by(Masks(), filled(used, window, gone), new)

    for row, at in enumerate(range(used - new, used)):
        first = 0 if window is None else max(0, at - window + 1)
        assert found[row] == set(range(first, at + 1)) - gone


def test_one_token_that_sees_everything_needs_no_mask() -> None:
    """The common step of decoding costs nothing."""
    assert Masks().visible(filled(10, None), 1, torch.float32) == (slice(0, 10), None)
    assert Masks().visible(filled(10, 4), 1, torch.float32) == (slice(6, 10), None)


def test_a_kept_mask_is_not_taken_for_another() -> None:
    """Layers of one chunk share masks; other sizes, windows and dtypes get their own."""
    masks = Masks()
    for _ in range(2):
        for used, new, window in ((9, 3, None), (9, 3, 4), (12, 3, None), (12, 5, None), (9, 3, 5)):
            buffer = filled(used, window)
            assert seen_by(masks, buffer, new) == seen_by(Masks(), buffer, new)
    _, half = masks.visible(filled(9, None), 3, torch.bfloat16)
    assert half is not None and half.dtype == torch.bfloat16


def test_heads_may_have_forgotten_different_tokens() -> None:
    """Dead flags are per KV head, as recalled blocks are; every query head of a group follows."""
    buffer = LayerBuffer(LayerSpec(0, 4, 2, 8, None, None), 8, torch.float32, CPU)
    buffer.mark_dead(torch.tensor([[True, False], [False, True]]))
    buffer.extend(torch.zeros(2, 3, 8), torch.zeros(2, 3, 8))
    _, mask = Masks().visible(buffer, 1, torch.float32)

    assert mask is not None and mask.shape == (4, 1, 3)
    assert (mask[:, 0] == 0).tolist() == [[False, True, True]] * 2 + [[True, False, True]] * 2


def test_a_cleared_buffer_forgets_what_was_dead() -> None:
    """The next agent's tokens at those places are seen."""
    buffer = filled(6, None, {1, 2})
    buffer.clear()
    buffer.extend(torch.zeros(2, 6, 8), torch.zeros(2, 6, 8))

    assert Masks().visible(buffer, 1, torch.float32) == (slice(0, 6), None)

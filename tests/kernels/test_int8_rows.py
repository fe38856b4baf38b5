"""Rows of one byte an element: what the specification says, bit for bit, and how far they are off."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from agentmem_kernels import Channels, reference, round_rows, widen_rows
from agentmem_kernels.int8_rows import SCALE_BYTES


def case(H: int, S: int, D: int, dtype: torch.dtype) -> tuple[Tensor, Channels]:
    """Random keys whose channels differ in size and lie around different places, as real ones do."""
    generator = torch.Generator().manual_seed(S + D)
    offset = torch.randn(H, 1, D, generator=generator) * 20
    factor = torch.rand(H, 1, D, generator=generator) * 3 + 0.01
    x = offset + factor * torch.randn(H, S, D, generator=generator)
    return x.to(dtype), Channels(offset.bfloat16().float(), factor.bfloat16().float())


def stored(x: Tensor, channels: Channels | None) -> Tensor:
    """Rounded by the fast path, into a part of a larger buffer as a log hands it out."""
    H, S, D = x.shape
    room = torch.full((H, S + 3, D + SCALE_BYTES), 99, dtype=torch.int8)
    round_rows(x, room[:, 2 : S + 2], torch.empty(H, S, D), channels)
    assert (room[:, :2] == 99).all()
    assert (room[:, S + 2 :] == 99).all()
    return room[:, 2 : S + 2]


def read(rows: Tensor, dtype: torch.dtype, channels: Channels | None) -> Tensor:
    """Widened by the fast path, into a part of a larger buffer."""
    H, S, D = rows.shape[0], rows.shape[1], rows.shape[2] - SCALE_BYTES
    room = torch.full((H, S + 3, D), 99.0, dtype=dtype)
    widen_rows(rows, room[:, 1 : S + 1], torch.empty(H, S, D), channels)
    assert (room[:, 0] == 99).all()
    assert (room[:, S + 1 :] == 99).all()
    return room[:, 1 : S + 1]


@pytest.mark.parametrize("keys", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [(2, 37, 64), (1, 1, 7), (3, 5, 8), (1, 0, 16), (4, 9, 128)])
def test_rows_equal_the_reference(shape: tuple[int, int, int], dtype: torch.dtype, *, keys: bool) -> None:
    """Any shape, odd heads included, and every dtype of models: the same codes, scales and elements."""
    x, channels = case(*shape, dtype)
    given = channels if keys else None

    rows = stored(x, given)

    assert torch.equal(rows, reference.rounded(x, given))
    assert torch.equal(read(rows, dtype, given), reference.widened(rows, dtype, given))


def test_an_element_is_off_by_half_a_step_at_most() -> None:
    """A step is the row's largest element over 127; the rounded scale adds a five-hundredth of that element."""
    x, channels = case(2, 50, 64, torch.float32)
    alike = (x - channels.offset) / channels.factor
    largest = alike.abs().amax(-1, keepdim=True)

    off = (read(stored(x, channels), torch.float32, channels) - x).abs() / channels.factor

    assert (off <= largest * (0.51 / 127) + 1e-4).all()
    assert off.max() > largest.max() / 1000, "the comparison measures something"


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    """Rounded one by one or together, a token is the same bytes."""
    x, channels = case(2, 20, 16, torch.bfloat16)
    alone = [stored(x[:, token : token + 1], channels) for token in range(20)]

    assert torch.equal(torch.cat(alone, dim=1), stored(x, channels))


def test_erased_rows_are_zeros_and_equal_ones_are_not() -> None:
    """Zero bytes read as zeros whatever the channels say; a key that equals its channels' offsets reads as them."""
    x, channels = case(2, 4, 8, torch.float32)
    x[:, 1] = channels.offset[:, 0]
    rows = stored(x, channels).clone()
    rows[:, 2] = 0

    found = read(rows, torch.float32, channels)

    assert torch.equal(found[:, 1], x[:, 1])
    assert not found[:, 2].any()
    assert found[:, 3].all()


def test_what_is_no_number_stays_none() -> None:
    """NaN and infinity are not hidden by codes."""
    x = torch.ones(1, 2, 4)
    x[0, 0, 1], x[0, 1, 2] = torch.nan, torch.inf

    assert read(stored(x, None), torch.float32, None).isnan().any(-1).all()

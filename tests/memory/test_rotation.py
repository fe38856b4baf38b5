"""One table form for every rotation: exact, in place or not, at any positions, from any thread."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from agentmem.errors import ShapeError
from agentmem.memory.rotation import RotaryTable

P, D = 50, 12
PERMS = {
    "half": [6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5],
    "interleaved": [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10],
    "partial half": [2, 3, 0, 1, *range(4, 12)],
    "partial interleaved": [1, 0, 3, 2, *range(4, 12)],
    "reversed": list(range(11, -1, -1)),
    "trailing": [*range(8), 10, 11, 8, 9],
    "none": list(range(12)),
}


def make(name: str, dtype: torch.dtype = torch.float32, *, in_fp32: bool = False) -> RotaryTable:
    """A table with random C and S, S zero and C one where nothing is rotated."""
    generator = torch.Generator().manual_seed(0)
    perm = torch.tensor(PERMS[name])
    moved = perm != torch.arange(D)
    C = torch.where(moved, torch.randn(P, D, generator=generator), torch.ones(()))
    S = torch.where(moved, torch.randn(P, D, generator=generator), torch.zeros(()))
    return RotaryTable(C.to(dtype), S.to(dtype), perm, in_fp32=in_fp32)


def spelled_out(name: str, x: Tensor, positions: Tensor) -> Tensor:
    """x * C + x[perm] * S, with the tables of ``make``."""
    generator = torch.Generator().manual_seed(0)
    perm = torch.tensor(PERMS[name])
    moved = perm != torch.arange(D)
    C = torch.where(moved, torch.randn(P, D, generator=generator), torch.ones(()))[positions]
    S = torch.where(moved, torch.randn(P, D, generator=generator), torch.zeros(()))[positions]
    return x * C.to(x.dtype) + x[..., perm] * S.to(x.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", PERMS)
def test_rotation_is_bit_exact_in_every_layout(name: str, dtype: torch.dtype) -> None:
    """New memory, a given buffer, in place, a range: all give the bits of x * C + x[perm] * S."""
    table = make(name, dtype)
    x = torch.randn(2, 7, D, generator=torch.Generator().manual_seed(1)).to(dtype)
    for positions in (torch.arange(20, 27), torch.tensor([3, 3, 49, 0, 7, 8, 9])):
        expected = spelled_out(name, x, positions)
        buffer, in_place = torch.full((2, 9, D), 7.0, dtype=dtype), x.clone()

        assert torch.equal(table.rotate(x, positions), expected)
        table.rotate(x, positions, buffer[:, 1:8])
        table.rotate(in_place, positions, in_place)
        assert torch.equal(buffer[:, 1:8], expected)
        assert (buffer[:, [0, 8]] == 7.0).all()
        assert torch.equal(in_place, expected)
    assert torch.equal(table.rotate(x, range(20, 27)), spelled_out(name, x, torch.arange(20, 27)))


@given(positions=st.lists(st.integers(0, P - 1), max_size=30), name=st.sampled_from(sorted(PERMS)))
@settings(max_examples=60, deadline=None)
def test_any_positions(positions: list[int], name: str) -> None:
    """Whatever the positions, consecutive or not or none, each token gets its own."""
    index = torch.tensor(positions, dtype=torch.long)
    x = torch.randn(1, 2, len(positions), D, generator=torch.Generator().manual_seed(2))

    assert torch.equal(make(name).rotate(x, index), spelled_out(name, x, index))


@pytest.mark.parametrize("positions", [range(0, 14, 2), range(9, 2, -1), range(4, 5)])
def test_any_range(positions: range) -> None:
    """A range that steps or runs backwards is rotated as the tensor it stands for."""
    x = torch.randn(3, len(positions), D)

    assert torch.equal(make("half").rotate(x, positions), spelled_out("half", x, torch.tensor(positions)))


@pytest.mark.parametrize("name", PERMS)
def test_in_fp32_rounds_once(name: str) -> None:
    """Models that rotate in fp32 get the fp32 result, rounded to their dtype."""
    table = make(name, in_fp32=True)
    x = torch.randn(2, 5, D).bfloat16()
    expected = spelled_out(name, x.float(), torch.arange(5)).bfloat16()
    out = torch.empty_like(x)

    assert torch.equal(table.rotate(x, range(5)), expected)
    assert torch.equal(table.rotate(x, range(5), out), expected)
    assert torch.equal(out, expected)


def test_key_scale_is_the_scale_at_position_zero() -> None:
    """A rotated dim of a key at position 0 is multiplied by C[0]; others by 1."""
    C, S = torch.full((3, 4), 1.25), torch.zeros(3, 4)
    C[:, 2:] = 1.0

    scale = RotaryTable(C, S, torch.tensor([1, 0, 2, 3]), in_fp32=False).key_scale()

    assert scale.tolist() == [1.25, 1.25, 1.0, 1.0]


def test_scratch_memory_survives_inference_mode() -> None:
    """A table first used inside inference mode can be used outside, and by other sizes."""
    table = make("half")
    with torch.inference_mode():
        table.rotate(torch.ones(1, 3, D), range(3))
    x = torch.ones(1, 2, D)

    assert torch.equal(table.rotate(x, range(2)), spelled_out("half", x, torch.arange(2)))


def test_threads_do_not_share_scratch() -> None:
    """Many threads rotating with one table at once get their own results."""
    table = make("half")
    inputs = [torch.randn(8, 50, D, generator=torch.Generator().manual_seed(n)) for n in range(16)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda x: [table.rotate(x, range(50)) for _ in range(20)], inputs))

    for x, many in zip(inputs, results, strict=True):
        expected = spelled_out("half", x, torch.arange(50))
        assert all(torch.equal(result, expected) for result in many)


def test_a_copy_is_the_same_table() -> None:
    """A table never changes, so copying a model does not copy it."""
    table = make("half")

    assert copy.deepcopy(table) is table


@pytest.mark.parametrize(
    ("shape", "positions", "message"),
    [
        ((1, 3, D), [0, 1], "2 positions"),
        ((1, 2, D + 1), [0, 1], "D=12"),
        ((1, 2, D), [48, 50], "48..50"),
        ((1, 2, D), [-1, 0], "-1..0"),
        ((1, 2, D), [49, 50], "max_positions"),
        ((1, 1, D), [[0]], "positions"),
    ],
)
def test_misuse_is_named(shape: tuple[int, ...], positions: list[int], message: str) -> None:
    """Wrong sizes and positions outside the table say what was wrong."""
    with pytest.raises(ShapeError, match=message):
        make("half").rotate(torch.zeros(shape), torch.tensor(positions))


def test_dtypes_are_checked() -> None:
    """A table of one dtype neither rotates nor fills another."""
    with pytest.raises(ShapeError, match="bfloat16"):
        make("half").rotate(torch.zeros(1, 1, D, dtype=torch.bfloat16), range(1))
    with pytest.raises(ShapeError, match="out"):
        make("half").rotate(torch.zeros(1, 1, D), range(1), torch.zeros(1, 2, D))
    with pytest.raises(ShapeError, match="in_fp32"):
        RotaryTable(torch.zeros(2, 4).bfloat16(), torch.zeros(2, 4).bfloat16(), torch.arange(4), in_fp32=True)
    with pytest.raises(ShapeError, match="perm"):
        RotaryTable(torch.zeros(2, 4), torch.zeros(2, 4), torch.arange(3), in_fp32=False)

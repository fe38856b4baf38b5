"""Tokens are rotated and moved as the specification says, by torch and by Triton."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from agentmem_kernels import Kept, Rotation, enter, reference, rotate_into

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# (Hq, Hkv, T, D, rotated dims): one token and many, dims that are no power of two, partial rotation
SHAPES = [(14, 2, 1, 64, 64), (6, 3, 17, 24, 16), (4, 1, 33, 8, 8), (2, 2, 5, 80, 20), (3, 1, 2, 2, 2)]
FORMS = ["half", "interleaved", "none"]


def _table(D: int, width: int, form: str, dtype: torch.dtype, *, in_fp32: bool) -> Rotation | None:
    """A table of 60 positions of random numbers: nothing depends on their being sines."""
    if form == "none":
        return None
    half = width // 2
    rotated = [*range(half, width), *range(half)] if form == "half" else [i ^ 1 for i in range(width)]
    generator = torch.Generator().manual_seed(D)
    kind = torch.float32 if in_fp32 else dtype
    C = torch.randn(60, D, generator=generator).to(kind)
    S = torch.randn(60, width, generator=generator).to(kind)
    return Rotation(C, S, torch.tensor([*rotated, *range(width, D)]), in_fp32)


def _on(rotation: Rotation | None, device: str) -> Rotation | None:
    if rotation is None:
        return None
    C, S, partner, in_fp32 = rotation
    return Rotation(C.to(device), S.to(device), partner.to(device), in_fp32)


def _same(found: Tensor, expected: Tensor) -> bool:
    """Bit for bit; but the interpreter cuts bf16 numbers off where everything else rounds them."""
    if found.device.type == "cpu" and found.dtype == torch.bfloat16:
        return torch.allclose(found.float(), expected.float(), atol=2**-6, rtol=2**-6)
    return torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("in_fp32", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_torch_rotates_as_specified(
    shape: tuple[int, ...], form: str, dtype: torch.dtype, in_fp32: bool
) -> None:
    """Torch's operations on whole tensors give the bits of one product after the other."""
    _, Hkv, T, D, width = shape
    rotation = _table(D, width, form, dtype, in_fp32=in_fp32)
    keys = torch.randn(Hkv, T, D, generator=torch.Generator().manual_seed(1)).to(dtype)
    out = torch.empty_like(keys)

    rotate_into(keys, None, rotation, 11, out, None, backend="torch")

    assert torch.equal(out, reference.rotated(rotation, keys, 11))


@pytest.mark.parametrize(("dtype", "in_fp32"), [*((one, False) for one in DTYPES), (DTYPES[1], True)])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_chosen_tokens_are_rotated_into_place(
    device: str, shape: tuple[int, ...], form: str, dtype: torch.dtype, in_fp32: bool
) -> None:
    """Tokens gathered per head, from strided rooms into the middle of a buffer: the rest of it stays."""
    _, Hkv, T, D, width = shape
    generator = torch.Generator().manual_seed(T)
    rotation = _table(D, width, form, dtype, in_fp32=in_fp32)
    keys, values = (torch.randn(2 * Hkv, 21, 2 * D, generator=generator).to(dtype) for _ in range(2))
    keys, values = keys[::2, :, :D], values[1::2, :, D:]
    tokens = torch.randint(0, 21, (Hkv, T), generator=generator)
    found = [torch.full((Hkv, T + 9, D), 7.0, dtype=dtype, device=device) for _ in range(2)]
    expected = torch.full((2, Hkv, T + 9, D), 7.0, dtype=dtype)
    index = tokens[..., None].expand(Hkv, T, D)
    expected[0, :, 4 : 4 + T] = reference.rotated(rotation, keys.gather(1, index), 4)
    expected[1, :, 4 : 4 + T] = values.gather(1, index)

    rotate_into(
        keys.to(device),
        values.to(device),
        _on(rotation, device),
        4,
        *(room[:, 4 : 4 + T] for room in found),
        tokens=tokens.to(device),
        backend="triton",
    )

    assert _same(found[0], expected[0]) and torch.equal(found[1].cpu(), expected[1])


@pytest.mark.parametrize("dtype", DTYPES[:2])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_new_tokens_enter(
    device: str, backend: str, shape: tuple[int, ...], form: str, dtype: torch.dtype
) -> None:
    """Queries come back rotated, keys and values stand in the buffer, and the raw ones are kept."""
    Hq, Hkv, T, D, width = shape
    generator = torch.Generator().manual_seed(T)
    rotation = _table(D, width, form, dtype, in_fp32=False)
    q, k, v = (  # as a model hands them over: (T, H, D) with the heads moved to the front
        torch.randn(T, H, D, generator=generator).to(dtype).transpose(0, 1) for H in (Hq, Hkv, Hkv)
    )
    v = v.transpose(1, 2).contiguous().transpose(1, 2)  # or in any other order
    keys, values = (torch.zeros(Hkv, T + 12, D, dtype=dtype, device=device) for _ in range(2))
    kept = Kept(*(torch.zeros(H, T + 5, D, dtype=dtype, device=device) for H in (Hq, Hkv, Hkv)))
    expected = torch.zeros(2, Hkv, T + 12, D, dtype=dtype)
    expected[0, :, 10 : 10 + T] = reference.rotated(rotation, k, 10)
    expected[1, :, 10 : 10 + T] = v

    there = [x.to(device) for x in (q, k, v)]
    turned = enter(*there, _on(rotation, device), 10, keys, values, kept=kept, at=3, backend=backend)

    assert _same(turned, reference.rotated(rotation, q, 10))
    assert _same(keys, expected[0]) and torch.equal(values.cpu(), expected[1])
    for room, raw in zip(kept, (q, k, v), strict=True):
        assert torch.equal(room[:, 3 : 3 + T].cpu(), raw)
        assert not room[:, :3].any() and not room[:, 3 + T :].any()


def test_nothing_enters_without_tokens(device: str) -> None:
    """No tokens, no launch: buffers stay, and what comes back is empty."""
    buffer = torch.zeros(2, 9, 8, device=device)
    empty = torch.zeros(2, 0, 8, device=device)

    rotate_into(empty, empty, None, 3, buffer[:, 3:3], buffer[:, 3:3], backend="triton")
    turned = enter(empty, empty, empty, None, 3, buffer, buffer.clone(), backend="triton")

    assert turned.shape == (2, 0, 8) and not buffer.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": torch.zeros(2, 5, 8)}, "keys"),
        ({"values": None}, "both or neither"),
        ({"values": torch.zeros(2, 5, 8)}, "values"),
        ({"start": 58}, "positions 58..61 leave the table of 60"),
        ({"start": -1}, "leave the table"),
        ({"keys": torch.zeros(2, 4, 8, dtype=torch.float16)}, "torch.float16 do not fit"),
        ({"keys_out": torch.zeros(2, 8, 4).transpose(1, 2)}, "contiguous"),
        ({"tokens": torch.zeros(2, 3, dtype=torch.int64)}, "tokens"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], message: str) -> None:
    """Shapes, dtypes and positions are checked before anything is written."""
    out = torch.zeros(2, 4, 8)
    good: dict[str, object] = {
        "keys": torch.ones(2, 4, 8),
        "values": torch.ones(2, 4, 8),
        "rotation": _table(8, 8, "half", torch.float32, in_fp32=False),
        "start": 2,
        "keys_out": out,
        "values_out": torch.zeros(2, 4, 8),
    }
    with pytest.raises(ValueError, match=message):
        rotate_into(**{**good, **change})
    assert not out.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": torch.zeros(2, 4, 8)}, "do not fit together"),
        ({"start": 7}, "leave the buffer of 9"),
        ({"at": 4}, "leave rooms of 6"),
        ({"values_out": torch.zeros(2, 8, 8)}, "values_out"),
        ({"kept": Kept(torch.zeros(4, 6, 8), torch.zeros(2, 7, 8), torch.zeros(2, 6, 8))}, "kept"),
    ],
)
def test_what_cannot_enter_is_named(change: dict[str, object], message: str) -> None:
    """The same for new tokens."""
    good: dict[str, object] = {
        "q": torch.zeros(4, 3, 8),
        "k": torch.zeros(2, 3, 8),
        "v": torch.zeros(2, 3, 8),
        "rotation": None,
        "start": 2,
        "keys_out": torch.zeros(2, 9, 8),
        "values_out": torch.zeros(2, 9, 8),
        "kept": Kept(torch.zeros(4, 6, 8), torch.zeros(2, 6, 8), torch.zeros(2, 6, 8)),
    }
    with pytest.raises(ValueError, match=message):
        enter(**{**good, **change})

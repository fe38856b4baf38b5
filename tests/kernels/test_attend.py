"""The fast path agrees with the specification, and the specification with attention written by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from agentmem_kernels import attend, reference

# (B, Hq, Hkv, T, S, D): one query and many, grouped and not, sizes that divide nothing
SHAPES = [
    (1, 4, 2, 1, 9, 16),
    (1, 14, 2, 1, 131, 64),
    (1, 14, 2, 3, 67, 64),
    (1, 6, 2, 13, 29, 8),
    (1, 5, 5, 7, 41, 24),
    (2, 4, 1, 9, 9, 32),
    (1, 3, 1, 1, 1, 4),
]
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}


def _tensors(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    B, Hq, Hkv, T, S, D = shape
    generator = torch.Generator().manual_seed(S)
    sizes = [(B, Hq, T, D), (B, Hkv, S, D), (B, Hkv, S, D)]
    q, keys, values = (torch.randn(size, generator=generator).to(dtype) for size in sizes)
    return q, keys, values


def _causal(T: int, S: int) -> Tensor:
    return torch.zeros(T, S).masked_fill(torch.ones(T, S).triu(S - T + 1).bool(), float("-inf"))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("masked", ["no", "2-D", "per head", "per batch"])
def test_fast_equals_reference(shape: tuple[int, ...], dtype: torch.dtype, sinks: bool, masked: str) -> None:
    """Grouped heads, masks of every form and sinks: the fast path rounds differently and no more."""
    B, Hq, _, T, S, _ = shape
    q, keys, values = _tensors(shape, dtype)
    mask = None if masked == "no" else _causal(T, S).to(dtype)
    if masked == "per head":
        assert mask is not None
        mask = mask + torch.linspace(0, 1, Hq).view(1, Hq, 1, 1).to(dtype) * torch.arange(S).to(dtype) / S
    elif masked == "per batch":
        assert mask is not None
        mask = mask.expand(B, 1, T, S)
    sink = torch.linspace(-1, 2, Hq) if sinks else None

    expected = reference.attend(q, keys, values, scaling=0.3, mask=mask, sinks=sink)
    found = attend(q, keys, values, scaling=0.3, mask=mask, sinks=sink)

    assert found.dtype == dtype
    assert torch.allclose(found.float(), expected.float(), atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sinks", [False, True])
def test_fast_softcap_equals_reference(shape: tuple[int, ...], dtype: torch.dtype, sinks: bool) -> None:
    """With a softcap, sinks or not, the fast path rounds differently and no more."""
    _, Hq, _, T, S, _ = shape
    q, keys, values = _tensors(shape, dtype)
    sink = torch.linspace(-1, 2, Hq) if sinks else None
    mask = _causal(T, S)

    expected = reference.attend(q, keys, values, scaling=2.0, mask=mask, softcap=4.0, sinks=sink)
    found = attend(q, keys, values, scaling=2.0, mask=mask, softcap=4.0, sinks=sink)

    assert torch.allclose(found.float(), expected.float(), atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("T", [1, 13])
def test_softcap_is_applied_before_the_mask(T: int) -> None:
    """With a softcap a masked key stays masked, and scores are capped."""
    q, keys, values = _tensors((1, 4, 2, T, 29, 8), torch.float32)
    mask = _causal(T, 29)
    scores = torch.einsum("bhtd,bhsd->bhts", q, keys.repeat_interleave(2, 1)) * 3.0
    share = torch.softmax(torch.tanh(scores / 5.0) * 5.0 + mask, -1)
    expected = share @ values.repeat_interleave(2, 1)

    found = attend(q, keys, values, scaling=3.0, mask=mask, softcap=5.0)

    assert torch.allclose(found, expected, atol=1e-6)


def test_reference_by_hand() -> None:
    """Two keys, one sink: shares are exp(score) over the sum, the sink's part included."""
    q = torch.tensor([[[[1.0, 0.0]]]])
    keys = torch.tensor([[[[2.0, 0.0], [0.0, 1.0]]]])
    values = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])
    total = math.exp(1.0) + math.exp(0.0) + math.exp(0.7)

    out = reference.attend(q, keys, values, scaling=0.5, sinks=torch.tensor([0.7]))

    assert torch.allclose(out[0, 0, 0], torch.tensor([math.exp(1.0) / total, 1.0 / total]))


def test_a_query_head_reads_its_own_group() -> None:
    """Query head h reads key/value head h // G."""
    values = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 5, 4)
    out = attend(torch.randn(1, 6, 1, 4), torch.randn(1, 2, 5, 4), values, scaling=1.0)

    assert torch.allclose(out[0, :, 0, 0], torch.tensor([1.0, 1.0, 1.0, 2.0, 2.0, 2.0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": torch.zeros(1, 2, 9, 8)}, "keys"),
        ({"values": torch.zeros(1, 2, 8, 16)}, "values"),
        ({"q": torch.zeros(1, 3, 2, 16)}, "not a multiple"),
        ({"q": torch.zeros(4, 2, 16)}, "four dimensions"),
        ({"mask": torch.zeros(2, 8)}, "mask"),
        ({"mask": torch.zeros(3, 2, 9)}, "mask"),
        ({"mask": torch.zeros(2, 9, dtype=torch.bool)}, "additive"),
        ({"sinks": torch.zeros(2)}, "sinks"),
    ],
)
def test_shapes_are_checked(change: dict[str, Tensor], message: str) -> None:
    """A tensor that does not fit is named, in both implementations."""
    good: dict[str, Tensor] = {
        "q": torch.zeros(1, 4, 2, 16),
        "keys": torch.zeros(1, 2, 9, 16),
        "values": torch.zeros(1, 2, 9, 16),
    }
    for function in (attend, reference.attend):
        with pytest.raises(ValueError, match=message):
            function(**{**good, **change}, scaling=1.0)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [*SHAPES, (1, 14, 2, 512, 2613, 64), (1, 14, 2, 1, 2613, 64)])
@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_fast_equals_reference_on_cuda(
    shape: tuple[int, ...], dtype: torch.dtype, sinks: bool, masked: bool
) -> None:
    """The GPU's fused kernels, with lengths that no kernel likes, against the specification in fp32 on the CPU."""
    _, Hq, _, T, S, _ = shape
    q, keys, values = _tensors(shape, dtype)
    mask = _causal(T, S).to(dtype) if masked else None
    sink = torch.linspace(-1, 2, Hq) if sinks else None
    expected = reference.attend(q, keys, values, scaling=0.3, mask=mask, sinks=sink)

    there = [None if one is None else one.cuda() for one in (mask, sink)]
    found = attend(q.cuda(), keys.cuda(), values.cuda(), scaling=0.3, mask=there[0], sinks=there[1])

    assert found.dtype == dtype
    tolerance = max(TOLERANCE[dtype], 2e-5)
    assert torch.allclose(found.cpu().float(), expected.float(), atol=tolerance, rtol=tolerance)

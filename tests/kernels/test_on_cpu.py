"""The compiled kernels: what the specification says, for odd shapes, and bits that depend on nothing but the row."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from agentmem_kernels import (
    Backend,
    BackendError,
    Kept,
    Rotation,
    attend,
    block_masses,
    enter,
    in_one_kernel,
    multiply_int8,
    on_cpu,
    reference,
    rotate_into,
)

pytestmark = pytest.mark.skipif(
    on_cpu.hindrance() is not None, reason=f"no kernels in C: {on_cpu.hindrance()}"
)

# (B, Hq, Hkv, T, S, D): blocks of 64 keys, tiles of 96 rows and groups of 6, whole and cut; widths that fill no register
SHAPES = [
    (1, 14, 2, 33, 131, 64),
    (1, 14, 2, 1, 2200, 64),
    (2, 6, 2, 13, 29, 8),
    (1, 5, 5, 17, 41, 24),
    (1, 3, 1, 9, 9, 2),
    (1, 8, 2, 130, 193, 128),
    (1, 9, 3, 64, 300, 80),
    (3, 4, 4, 7, 64, 256),
    (1, 7, 1, 1, 1, 64),
]


def case(shape: tuple[int, ...], size: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Random queries, keys and values in bfloat16; ``size`` is that of queries and keys."""
    B, Hq, Hkv, T, S, D = shape
    generator = torch.Generator().manual_seed(S)
    shapes = [(B, Hq, T, D), (B, Hkv, S, D), (B, Hkv, S, D)]
    q, keys, values = (torch.randn(one, generator=generator) for one in shapes)
    return (q * size).bfloat16(), (keys * size).bfloat16(), values.bfloat16()


def causal(T: int, S: int) -> Tensor:
    """New tokens see the past and themselves."""
    return torch.zeros(T, S).masked_fill(torch.ones(T, S).triu(S - T + 1).bool(), float("-inf")).bfloat16()


def native(
    q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, scaling: float = 0.125
) -> Tensor:
    """By the compiled kernel, or an error."""
    return attend(q, keys, values, scaling=scaling, mask=mask, backend="native")


@pytest.mark.parametrize("scaling", [0.125, 0.3])
@pytest.mark.parametrize("masked", ["no", "causal", "per head", "per batch", "a slope"])
@pytest.mark.parametrize("shape", SHAPES)
def test_attention_equals_the_reference(shape: tuple[int, ...], masked: str, scaling: float) -> None:
    """Any number of heads, queries and keys, masks of every form, values that are not only 0 and -inf."""
    B, Hq, _, T, S, _ = shape
    q, keys, values = case(shape)
    mask = {
        "no": None,
        "causal": causal(T, S),
        "per head": causal(T, S) * torch.ones(Hq, 1, 1, dtype=torch.bfloat16),
        "per batch": causal(T, S).expand(B, 1, T, S).contiguous(),
        "a slope": (causal(T, S) + torch.linspace(-3, 3, S)).bfloat16(),
    }[masked]
    mask = None if mask is None else mask.nan_to_num(nan=0.0, neginf=-torch.inf)

    wanted = reference.attend(q, keys, values, scaling=scaling, mask=mask)
    found = native(q, keys, values, mask, scaling)

    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), wanted.float(), atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("size", [0.3, 1.0, 3.0, 8.0])
def test_it_is_as_exact_as_fused_attention(size: float) -> None:
    """Beside double precision, however large logits are: no further off than torch's own kernel."""
    q, keys, values = case((1, 4, 2, 64, 700, 64), size)
    mask = causal(64, 700)
    exact = scaled_dot_product_attention(
        q.double(), keys.double(), values.double(), attn_mask=mask.double(), scale=0.125, enable_gqa=True
    )

    def error(found: Tensor) -> float:
        return float((found.double() - exact).pow(2).mean().sqrt())

    fused = scaled_dot_product_attention(q, keys, values, attn_mask=mask, scale=0.125, enable_gqa=True)
    assert error(native(q, keys, values, mask)) <= 1.1 * error(fused)


def test_logits_that_grow_along_the_keys_do_not_overflow() -> None:
    """Each block of keys has larger logits than all before, by little and by much; and the largest come first."""
    for step in (0.02, 0.5, 30.0, -30.0):
        q = torch.ones(1, 2, 20, 32).bfloat16()
        size = step * torch.arange(400).float().div(64).floor()
        keys = size.view(1, 1, 400, 1).expand(1, 1, 400, 32).bfloat16()
        values = torch.arange(400.0).view(1, 1, 400, 1).expand(1, 1, 400, 32).bfloat16()
        wanted = reference.attend(q, keys, values, scaling=0.25)
        assert torch.allclose(native(q, keys, values, scaling=0.25).float(), wanted.float(), rtol=1e-2), step


def test_a_row_that_sees_nothing_is_nan_and_others_are_not() -> None:
    """As in the specification: no weight, no answer. Keys that are hidden may hold anything."""
    q, keys, values = case((1, 4, 2, 9, 200, 64))
    mask = causal(9, 200).clone()
    mask[3] = -torch.inf
    mask[:, 64:128] = -torch.inf  # a whole block, for all
    found = native(q, keys, values, mask)
    assert found[:, :, 3].isnan().all() and not found[:, :, torch.arange(9) != 3].isnan().any()

    keys[:, :, 64:128] = torch.nan
    values[:, :, 64:128] = torch.nan
    again = native(q, keys, values, mask)
    assert torch.equal(again[:, :, torch.arange(9) != 3], found[:, :, torch.arange(9) != 3])


def test_a_query_that_is_nan_stays_one() -> None:
    """And no other row hears of it."""
    q, keys, values = case((1, 4, 2, 9, 200, 64))
    found = native(q, keys, values)
    q[0, 1, 4] = torch.nan
    spoilt = native(q, keys, values)
    assert spoilt[0, 1, 4].isnan().all()
    spoilt[0, 1, 4] = found[0, 1, 4]
    assert torch.equal(spoilt, found)


def test_a_rows_bits_do_not_depend_on_its_company() -> None:
    """Alone, among others, in another head's place, on one thread and on two."""
    q, keys, values = case((1, 14, 2, 50, 777, 64))
    together = native(q, keys, values)
    for t in (0, 7, 49):
        assert torch.equal(native(q[:, :, t : t + 1], keys, values), together[:, :, t : t + 1])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        assert torch.equal(native(q, keys, values), together)
    finally:
        torch.set_num_threads(threads)


def test_views_are_read_where_they_lie() -> None:
    """Slices of larger buffers, heads apart, a transposed query: strides, not copies."""
    q, keys, values = case((1, 6, 2, 21, 90, 64))
    slab = torch.full((2, 2, 300, 80), torch.nan, dtype=torch.bfloat16)
    slab[0, :, 100:190, 8:72], slab[1, :, 100:190, 8:72] = keys[0], values[0]
    k, v = slab[:1, :, 100:190, 8:72], slab[1:, :, 100:190, 8:72]
    turned = q.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(native(turned, k, v, causal(21, 90)), native(q, keys, values, causal(21, 90)))


# (Hkv, M, N, L, W)
BLOCKS = [
    (2, 7, 37, 1, 24),
    (2, 112, 65, 1, 64),
    (1, 17, 1100, 1, 16),
    (2, 119, 9, 32, 64),
    (3, 70, 21, 5, 16),
    (1, 1, 1, 1, 8),
]


@pytest.mark.parametrize("shape", BLOCKS)
@pytest.mark.parametrize("case", ["plain", "dead", "parts"])
def test_masses_equal_the_reference(shape: tuple[int, ...], case: str) -> None:
    """Dead keys, edges, blocks in several parts; sums in fp32, so nearer than torch's path."""
    Hkv, M, N, L, W = shape
    generator = torch.Generator().manual_seed(N)
    queries = torch.randn(Hkv, M, W, generator=generator).bfloat16().float()
    keys = torch.randn(Hkv, N, L, W, generator=generator).bfloat16()
    dead = torch.rand(Hkv, N, L, generator=generator) < 0.2 if case == "dead" else None
    edge = max(1, L // 4)
    cut = (
        [keys] if case != "parts" else [one for one in (keys[:, : N // 3], keys[:, N // 3 :]) if one.shape[1]]
    )

    found = block_masses(queries, cut, dead=dead, edge=edge, backend="native")
    wanted = reference.block_masses(queries, keys, dead=dead, edge=edge)

    assert found.shape == wanted.shape
    assert torch.allclose(found, wanted, atol=2e-5, rtol=2e-5)


def test_masses_do_not_depend_on_parts_threads_or_what_lies_in_lent_memory() -> None:
    """Not by a bit."""

    class Soiled:
        def room(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            return torch.full(tuple(shape), torch.nan, dtype=dtype)

    generator = torch.Generator().manual_seed(0)
    queries, keys = (
        torch.randn(2, 112, 64, generator=generator),
        torch.randn(2, 900, 1, 64, generator=generator).bfloat16(),
    )
    once = block_masses(queries, keys, backend="native")
    cut = [keys[:, :128], keys[:, 128:640], keys[:, 640:]]
    assert torch.equal(block_masses(queries, cut, backend="native", scratch=Soiled()), once)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        assert torch.equal(block_masses(queries, keys, backend="native"), once)
    finally:
        torch.set_num_threads(threads)


def test_dead_keys_may_hold_anything() -> None:
    """A forgotten key that is NaN counts for nothing; where none lives there is nothing."""
    generator = torch.Generator().manual_seed(0)
    queries, keys = (
        torch.randn(2, 5, 64, generator=generator),
        torch.randn(2, 30, 4, 64, generator=generator).bfloat16(),
    )
    dead = torch.zeros(2, 30, 4, dtype=torch.bool)
    dead[:, 3:17, 1] = True
    wanted = block_masses(queries, keys, dead=dead, backend="native")
    keys[dead] = torch.nan
    assert torch.equal(block_masses(queries, keys, dead=dead, backend="native"), wanted)
    assert not block_masses(queries, keys, dead=torch.ones_like(dead), backend="native").any()


def test_what_it_cannot_take_is_refused_by_name_and_left_to_torch_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """fp32, odd widths and gradients."""
    q, keys, values = case((1, 2, 1, 4, 9, 16))
    for other in (
        (q.float(), keys.float(), values.float()),
        (q[..., :15], keys[..., :15], values[..., :15]),
        (q.clone().requires_grad_(), keys, values),
    ):
        with pytest.raises(BackendError, match=r"backend='native' cannot run: .*use backend='auto'"):
            attend(*other, scaling=0.25, backend="native")
        wanted = reference.attend(*other, scaling=0.25)
        assert torch.allclose(attend(*other, scaling=0.25).float(), wanted.float(), atol=2e-2)
    monkeypatch.delenv("AGENTMEM_KERNELS", raising=False)
    assert in_one_kernel(q[0].float(), keys) and not in_one_kernel(q[0].float(), keys.float())


@pytest.mark.parametrize(
    ("M", "N", "K"), [(1, 64, 896), (4, 65, 576), (13, 3, 31), (24, 130, 4864), (7, 1, 1), (2, 5, 160)]
)
def test_int8_weights_equal_the_reference_and_rows_stand_alone(M: int, N: int, K: int) -> None:
    """Widths that fill nothing, groups of rows, steps at both ends of their range; a row's bits are its own."""
    generator = torch.Generator().manual_seed(K)
    x = torch.randn(M, K, generator=generator).bfloat16()
    steps = torch.randint(-128, 128, (N, K), generator=generator, dtype=torch.int8)
    scales = torch.rand(N, generator=generator).bfloat16()

    found = multiply_int8(x, steps, scales, backend="native")

    wanted = (x.double() @ steps.double().T) * scales.double()
    assert torch.allclose(found.double(), wanted, rtol=4e-3, atol=1e-3 * K**0.5)
    rows = [multiply_int8(x[m : m + 1], steps, scales, backend="native") for m in range(M)]
    assert torch.equal(torch.cat(rows), found)
    assert torch.allclose(
        reference.multiply_int8(x, steps, scales).double(), wanted, rtol=4e-3, atol=1e-3 * K**0.5
    )


def test_int8_weights_do_not_depend_on_threads_or_what_lies_behind_them() -> None:
    """Weights at the end of their memory, and rows that are slices."""
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(3, 2, 100, generator=generator).bfloat16()
    steps = torch.randint(-128, 128, (300, 100), generator=generator, dtype=torch.int8)
    scales = torch.rand(300, generator=generator).bfloat16()
    found = multiply_int8(wide[:, 0], steps, scales, backend="native")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        assert torch.equal(
            multiply_int8(wide[:, 0].contiguous(), steps.clone(), scales, backend="native"), found
        )
    finally:
        torch.set_num_threads(threads)


def test_int8_shapes_that_do_not_fit_are_named() -> None:
    """In front of every path."""
    x, steps, scales = (
        torch.zeros(2, 16).bfloat16(),
        torch.zeros(3, 16, dtype=torch.int8),
        torch.zeros(3).bfloat16(),
    )
    for bad in (
        (x[:, :8], steps, scales),
        (x, steps.float(), scales),
        (x, steps, scales.float()),
        (x, steps, scales[:2]),
    ):
        with pytest.raises(ValueError, match="do not fit"):
            multiply_int8(*bad)


# (Hq, Hkv, T, D, rotated dims)
ENTERING = [(14, 2, 1, 64, 64), (6, 3, 16, 24, 16), (4, 1, 5, 8, 8), (2, 2, 7, 80, 20), (3, 1, 2, 2, 2)]


@pytest.mark.parametrize("shape", ENTERING)
@pytest.mark.parametrize("form", ["half", "interleaved", "none"])
@pytest.mark.parametrize("in_fp32", [False, True])
@pytest.mark.parametrize("keeps", [False, True])
def test_new_tokens_enter_with_the_bits_of_the_reference(
    shape: tuple[int, ...], form: str, in_fp32: bool, keeps: bool
) -> None:
    """Rotated and raw, where they belong, and nothing beside them is touched."""
    Hq, Hkv, T, D, width = shape
    half = width // 2
    generator = torch.Generator().manual_seed(D)
    rotated = [*range(half, width), *range(half)] if form == "half" else [i ^ 1 for i in range(width)]
    kind = torch.float32 if in_fp32 else torch.bfloat16
    C, S = (torch.randn(60, n, generator=generator).to(kind) for n in (D, width))
    rotation = None if form == "none" else Rotation(C, S, torch.tensor([*rotated, *range(width, D)]), in_fp32)
    q, k, v = (torch.randn(T, H, D, generator=generator).bfloat16().transpose(0, 1) for H in (Hq, Hkv, Hkv))
    keys, values = (torch.zeros(Hkv, T + 12, D, dtype=torch.bfloat16) for _ in "kv")
    kept = Kept(*(torch.zeros(H, T + 5, D, dtype=torch.bfloat16) for H in (Hq, Hkv, Hkv))) if keeps else None

    turned = enter(q, k, v, rotation, 10, keys, values, kept=kept, at=3, backend="native")

    assert torch.equal(turned, reference.rotated(rotation, q, 10))
    assert torch.equal(keys[:, 10 : 10 + T], reference.rotated(rotation, k, 10))
    assert torch.equal(values[:, 10 : 10 + T], v)
    for buffer in (keys, values):
        assert not buffer[:, :10].any() and not buffer[:, 10 + T :].any()
    for room, raw in zip(kept or (), (q, k, v), strict=False):
        assert torch.equal(room[:, 3 : 3 + T], raw)
        assert not room[:, :3].any() and not room[:, 3 + T :].any()


def test_rounding_is_that_of_torch() -> None:
    """Ties, infinities, the largest and the smallest numbers: each product and sum by itself."""
    numbers = torch.arange(0, 1 << 16, 7).to(torch.int32).to(torch.int16).view(torch.bfloat16)
    numbers = numbers[: len(numbers) // 8 * 8].view(1, -1, 8)
    numbers = numbers.where(numbers.isfinite(), torch.inf)
    for start in range(0, numbers.shape[1], 16):
        x = numbers[:, start : start + 16]
        T = x.shape[1]
        C, S = (x.flip(1)[0] * n for n in (0.9990234375, 1.0078125))
        rotation = Rotation(C.contiguous(), S.contiguous(), torch.tensor([4, 5, 6, 7, 0, 1, 2, 3]), False)
        out = torch.zeros(1, T, 8, dtype=torch.bfloat16)
        turned = enter(x, x, x, rotation, 0, out, out.clone(), backend="native")
        wanted = reference.rotated(rotation, x, 0)
        assert torch.equal(turned.nan_to_num(nan=7.0), wanted.nan_to_num(nan=7.0))
        assert torch.equal(turned.isnan(), wanted.isnan())


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_rows_see_only_their_first_keys(backend: Backend) -> None:
    """A causal row: what lies behind what it sees is not there, whatever it holds; a factor on q.k, in fp32."""
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(2, 31, 64, generator=generator).bfloat16().float()
    keys = torch.randn(2, 150, 1, 64, generator=generator).bfloat16()
    seen = torch.randint(0, 151, (31,), generator=generator)
    seen[:3] = torch.tensor([0, 150, 64])
    wanted = torch.zeros(1, 2, 150)
    for row, count in enumerate(seen.tolist()):
        if count:
            own = reference.block_masses(0.25 * queries[:, row : row + 1], keys[:, :count])
            wanted[:, :, :count] += own
    found = block_masses(queries, keys, seen=seen, scaling=0.25, backend=backend)
    assert torch.allclose(found, wanted, atol=0.05 if backend == "torch" else 1e-4)
    with pytest.raises(ValueError, match="seen: expected"):
        block_masses(queries, keys, seen=seen[:5], backend=backend)


@pytest.mark.parametrize("in_fp32", [False, True])
@pytest.mark.parametrize("form", ["half", "interleaved", "partial"])
@pytest.mark.parametrize(("T", "D"), [(1, 64), (300, 64), (17, 80), (129, 128), (5, 6)])
def test_keys_are_turned_with_the_bits_of_the_reference(T: int, D: int, form: str, in_fp32: bool) -> None:
    """Into a view of a buffer, and in place; on any number of threads."""
    generator = torch.Generator().manual_seed(T)
    width = D // 2 if form == "partial" else D
    half = width // 2
    pairs = [*range(half, width), *range(half)] if form != "interleaved" else [i ^ 1 for i in range(width)]
    kind = torch.float32 if in_fp32 else torch.bfloat16
    C, S = (torch.randn(T + 9, n, generator=generator).to(kind) for n in (D, width))
    rotation = Rotation(C, S, torch.tensor([*pairs, *range(width, D)]), in_fp32)
    keys = torch.randn(T, 3, D, generator=generator).bfloat16().transpose(0, 1)
    wanted = reference.rotated(rotation, keys, 7)

    buffer = torch.full((3, T + 4, D), torch.nan, dtype=torch.bfloat16)
    rotate_into(keys, None, rotation, 7, buffer[:, 2 : T + 2], None, backend="native")
    assert torch.equal(buffer[:, 2 : T + 2], wanted)
    assert buffer[:, :2].isnan().all() and buffer[:, T + 2 :].isnan().all()
    on_cpu.rotate(keys, rotation, 7, keys)
    assert torch.equal(keys, wanted)

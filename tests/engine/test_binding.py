"""A bound model in chunks equals the stock model in one pass, for every supported family."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import Tensor

from agentmem.engine.binding import Binding, bind
from agentmem.memory.rotation import LayerSpec, RotaryTable
from support.oracle import DenseOracle, run
from support.tiny_models import FAMILIES, MIXED_WINDOWS, WINDOW, build, in_bfloat16, prompt, stock_logits

CHUNKS = (1, 13, 29, 2, 20)
IDS = prompt(sum(CHUNKS) + 25)
TOLERANCE = 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_chunks_and_single_steps_equal_one_stock_pass(family: str) -> None:
    """Five chunks and 25 single steps give the stock logits at every position, and unbinding restores."""
    model = build(family)
    stock = stock_logits(model, IDS)
    binding = bind(model)

    assert torch.allclose(run(binding, IDS, CHUNKS), stock, atol=TOLERANCE, rtol=0)

    binding.unbind()

    assert torch.equal(stock_logits(model, IDS), stock)


@pytest.mark.parametrize("family", MIXED_WINDOWS)
def test_windows_are_found(family: str) -> None:
    """Layers with a sliding window are told from full ones, and full ones are those that recall."""
    binding = bind(build(family))

    assert [layer.window for layer in binding.layers] == [WINDOW, None, WINDOW, None]
    assert binding.full_layers == (1, 3)


@pytest.mark.parametrize(
    ("family", "rotated"),
    [("smollm3", [True, True, True, False]), ("cohere2", [True, False, True, False]), ("llama", [True] * 4)],
)
def test_layers_without_positions_are_found(family: str, rotated: list[bool]) -> None:
    """A layer that uses no positions has no rotary table."""
    assert [layer.rotary is not None for layer in bind(build(family)).layers] == rotated


def test_shapes_are_found() -> None:
    """Specs name heads and sizes in log order, and equal layers share one rotary table."""
    binding = bind(build("qwen3"))

    assert [(spec.index, spec.num_q_heads, spec.num_kv_heads, spec.head_dim) for spec in binding.layers] == [
        (index, 4, 2, 16) for index in range(4)
    ]
    assert len({id(spec.rotary) for spec in binding.layers}) == 1
    assert binding.trained_length == binding.max_positions == 256


def test_one_rotary_module_with_two_frequency_sets_makes_two_tables() -> None:
    """Gemma 3 rotates window layers and full layers by different frequencies."""
    tables = [spec.rotary for spec in bind(build("gemma3")).layers]

    assert tables[0] is tables[2]
    assert tables[1] is tables[3]
    assert _angle(tables[0]) != _angle(tables[1])


def _angle(table: RotaryTable | None) -> float:
    assert table is not None
    one = torch.zeros(1, 1, table.head_dim)
    one[..., 1] = 1.0
    return float(table.rotate(one, range(7, 8))[0, 0, 1])


def test_yarn_keys_are_scaled() -> None:
    """A YaRN table says by how much a raw key is shorter than a rotated one; a plain table says 1."""
    yarn, plain = (bind(build(family)).layers[0].rotary for family in ("llama-yarn", "llama"))
    assert yarn is not None
    assert plain is not None

    assert torch.allclose(yarn.key_scale(), torch.full((16,), 1.1386), atol=1e-4)
    assert torch.equal(plain.key_scale(), torch.ones(16))


@pytest.mark.gpu
@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_code_serves_cuda(family: str) -> None:
    """On a GPU the bound model equals the stock model there, too."""
    model = build(family).cuda()
    ids = IDS.cuda()
    stock = stock_logits(model, ids)

    assert torch.allclose(run(bind(model), ids, CHUNKS), stock, atol=1e-3, rtol=0)


class _Wrong(DenseOracle):
    """An oracle with one thing wrong, to see that the comparison would notice."""

    def __init__(self, binding: Binding, change: str) -> None:
        specs = [
            LayerSpec(
                spec.index,
                spec.num_q_heads,
                spec.num_kv_heads,
                spec.head_dim,
                None if change == "window" else spec.window,
                None if change == "rotary" else spec.rotary,
            )
            for spec in binding.layers
        ]
        super().__init__(specs)
        self.change = change

    def attend(
        self,
        layer: int,
        q_raw: Tensor,
        k_raw: Tensor,
        v: Tensor,
        *,
        scaling: float,
        softcap: float | None,
        sinks: Tensor | None,
    ) -> Tensor:
        return super().attend(
            layer,
            q_raw,
            k_raw,
            v,
            scaling=16**-0.5 if self.change == "scaling" else scaling,
            softcap=None if self.change == "softcap" else softcap,
            sinks=None if self.change == "sinks" else sinks,
        )


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("llama", "rotary"),
        ("qwen2-mixed", "window"),
        ("granite", "scaling"),
        ("gemma2", "softcap"),
        ("gpt-oss", "sinks"),
    ],
)
def test_what_the_layer_says_matters(family: str, change: str) -> None:
    """Leaving out the rotation, window, scaling, softcap or sinks moves the logits far off."""
    model = build(family)
    stock = stock_logits(model, IDS)
    binding = bind(model)

    wrong = run(binding, IDS, [IDS.shape[1]], _Wrong(binding, change))

    assert (wrong - stock).abs().max() > 0.1


def test_longrope_is_pinned_to_the_short_factors_by_default() -> None:
    """Without a wish the table ends where longrope's long factors begin, and the choice is a fact."""
    binding = bind(build("phi3-longrope"))

    assert binding.max_positions == 128
    assert binding.rope_facts["model.rotary_emb.longrope"] == "short"


def test_longrope_can_be_pinned_to_the_long_factors() -> None:
    """With more positions the whole table uses the long factors, as one stock pass of that length does."""
    model = build("phi3-longrope", original_max_position_embeddings=64)
    stock = stock_logits(model, IDS)
    binding = bind(model, max_positions=200)

    assert binding.rope_facts["model.rotary_emb.longrope"] == "long"
    assert torch.allclose(run(binding, IDS, CHUNKS), stock, atol=TOLERANCE, rtol=0)


def test_dynamic_frequencies_do_not_depend_on_earlier_calls() -> None:
    """A dynamic-NTK model that has seen a text beyond its length still binds with its own frequencies."""
    model = build("llama-dynamic", max_position_embeddings=100)
    stock = stock_logits(model, IDS)
    stock_logits(model, prompt(150))  # grows the frequencies the module holds
    binding = bind(model)

    assert torch.allclose(run(binding, IDS, CHUNKS), stock, atol=TOLERANCE, rtol=0)


DENSE = [family for family in FAMILIES if family not in ("mixtral", "qwen3-moe", "gpt-oss")]


@pytest.mark.parametrize("family", DENSE)
def test_bfloat16_is_as_close_as_stock_bfloat16(family: str) -> None:
    """In bf16 the mean error against fp32 is that of the stock bf16 model, give or take a half."""
    exact = stock_logits(build(family), IDS)
    model = in_bfloat16(build(family))
    stock_error = (stock_logits(model, IDS).float() - exact).abs().mean()
    error = (run(bind(model), IDS, CHUNKS).float() - exact).abs().mean()

    assert error < 1.5 * stock_error


@pytest.mark.parametrize("family", ["llama", "llama-yarn", "phi3", "olmo2", "glm4", "cohere2", "gpt-oss"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tables_rotate_bit_for_bit_like_the_model(family: str, dtype: torch.dtype) -> None:
    """A table gives the bits of the model's own rotation, at consecutive and at chosen positions."""
    model = build(family) if dtype == torch.float32 else in_bfloat16(build(family))
    rotary = model.model.rotary_emb
    function = importlib.import_module(type(model).__module__).apply_rotary_pos_emb
    table = bind(model).layers[0].rotary
    assert table is not None
    chosen = torch.tensor([0, 3, 4, 99, 17, 255])
    q = torch.randn(1, 3, 6, table.head_dim, generator=torch.Generator().manual_seed(0)).to(dtype)
    k = torch.randn(1, 2, 6, table.head_dim, generator=torch.Generator().manual_seed(1)).to(dtype)

    for positions in (chosen, torch.arange(40, 46)):
        cos, sin = rotary(q, positions[None])
        q_rot, k_rot = function(q, k, cos, sin)

        assert torch.equal(table.rotate(q, positions), q_rot)
        assert torch.equal(table.rotate(k, positions), k_rot)

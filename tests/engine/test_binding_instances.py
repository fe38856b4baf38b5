"""Only the bound instance changes: others, shared configs, files and threads are left alone."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from agentmem.engine.binding import bind
from agentmem.errors import ClosedError, ConfigError, InputError, UnsupportedModelError
from support.oracle import DenseOracle, run
from support.tiny_models import (
    VOCAB,
    build,
    from_options,
    in_bfloat16,
    prompt,
    randomised,
    stock_logits,
)

IDS = prompt(60)
CHUNKS = (1, 13, 29)


def exact(logits: torch.Tensor, stock: torch.Tensor) -> bool:
    return torch.allclose(logits, stock, atol=1e-4, rtol=0)


def test_two_bound_models_and_an_unbound_one_live_side_by_side() -> None:
    """Each keeps its own logits, whichever runs in between."""
    first, second, alone = build("llama"), build("llama-yarn", seed=1), build("llama", seed=2)
    stocks = [stock_logits(model, IDS) for model in (first, second, alone)]
    bindings = [bind(first), bind(second)]
    contexts = [DenseOracle(binding.layers) for binding in bindings]

    for start in range(0, IDS.shape[1], 20):
        piece = IDS[:, start : start + 20]
        for binding, context, stock in zip(bindings, contexts, stocks[:2], strict=True):
            logits = binding.forward(piece, context, logits_to_keep=20)
            assert exact(logits, stock[:, start : start + 20])
        assert torch.equal(stock_logits(alone, IDS), stocks[2])


def test_a_shared_config_object_is_not_touched() -> None:
    """Two instances made from one config object: binding one leaves the other and the object alone."""
    config = build("llama").config
    first, second = (randomised(LlamaForCausalLM, config, seed) for seed in (3, 4))
    assert first.config is second.config
    stock = stock_logits(second, IDS)
    before = config._attn_implementation

    binding = bind(first)

    assert config._attn_implementation == before
    assert torch.equal(stock_logits(second, IDS), stock)
    binding.unbind()
    assert first.config is config


def test_two_threads_share_one_bound_model() -> None:
    """Contexts travel with their calls: two conversations at once stay exact."""
    model = build("qwen3")
    prompts = [prompt(60, seed) for seed in range(4)]
    stocks = [stock_logits(model, ids) for ids in prompts]
    binding = bind(model)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda ids: run(binding, ids, CHUNKS), prompts))

    for logits, stock in zip(results, stocks, strict=True):
        assert exact(logits, stock)


def test_binding_again_returns_the_same_binding() -> None:
    """A second bind must not wrap the stand-ins of the first."""
    model = build("llama")
    stock = stock_logits(model, IDS)
    binding = bind(model, max_positions=100)

    assert bind(model) is binding
    assert bind(model, max_positions=60) is binding
    with pytest.raises(ConfigError, match="already bound for 100"):
        bind(model, max_positions=101)
    assert exact(run(binding, IDS, CHUNKS), stock)


def test_rebinding_is_exact() -> None:
    """Bind, unbind, bind: the second binding is as exact as the first."""
    model = build("gemma3")
    stock = stock_logits(model, IDS)
    bind(model).unbind()

    assert exact(run(bind(model), IDS, CHUNKS), stock)


def test_an_unbound_binding_refuses_work() -> None:
    """After unbind, forward raises and a second unbind does nothing."""
    binding = bind(build("llama"))
    binding.unbind()
    binding.unbind()

    with pytest.raises(ClosedError, match="unbound"):
        binding.forward(IDS, DenseOracle(binding.layers))


def test_a_bound_model_called_directly_says_what_to_do() -> None:
    """Without a context there is no memory to attend to."""
    model = build("llama")
    binding = bind(model)

    with pytest.raises(InputError, match=r"unbind\(\)"):
        model(IDS)
    with pytest.raises(InputError, match=r"unbind\(\)"):
        model.generate(IDS, max_new_tokens=2)
    assert binding.bound


@pytest.mark.parametrize("shape", [(2, 5), (1, 0), (5,)])
def test_only_one_sequence_is_read(shape: tuple[int, ...]) -> None:
    """Batches and empty inputs are refused before the model runs."""
    binding = bind(build("llama"))

    with pytest.raises(InputError, match="expected"):
        binding.forward(torch.ones(shape, dtype=torch.long), DenseOracle(binding.layers))


@pytest.mark.parametrize("family", ["llama", "gemma2", "granite"])
def test_as_many_logits_as_asked_for(family: str) -> None:
    """0 keeps none, 1 the last, more than there are all."""
    model = build(family)
    stock = stock_logits(model, IDS)
    binding = bind(model)
    kept = {
        keep: binding.forward(IDS, DenseOracle(binding.layers), logits_to_keep=keep) for keep in (0, 1, 7, 99)
    }

    assert kept[0].shape == (1, 0, VOCAB)
    assert exact(kept[1], stock[:, -1:])
    assert exact(kept[7], stock[:, -7:])
    assert exact(kept[99], stock)


def test_a_bound_model_saves_normally(tmp_path: Path) -> None:
    """What is saved from a bound model is the stock model: same weights, no trace in its config."""
    model = build("llama")
    stock = stock_logits(model, IDS)
    names = set(model.state_dict())
    bind(model)

    assert set(model.state_dict()) == names
    model.save_pretrained(tmp_path)
    assert "agentmem" not in (tmp_path / "config.json").read_text()
    assert torch.equal(stock_logits(AutoModelForCausalLM.from_pretrained(tmp_path).eval(), IDS), stock)


def test_a_copy_of_a_bound_model_is_bound_on_its_own() -> None:
    """deepcopy makes an instance whose binding is its own; unbinding it leaves the original bound."""
    model = build("llama")
    stock = stock_logits(model, IDS)
    binding = bind(model)
    twin = copy.deepcopy(model)
    twin_binding = bind(twin)

    assert twin_binding is not binding
    assert exact(run(twin_binding, IDS, CHUNKS), stock)
    twin_binding.unbind()
    assert torch.equal(stock_logits(twin, IDS), stock)
    assert exact(run(binding, IDS, CHUNKS), stock)


@pytest.mark.parametrize("family", ["llama", "qwen3-yarn", "gemma3", "olmo2"])
def test_frequencies_rounded_by_a_cast_are_made_anew(family: str) -> None:
    """``model.to(bfloat16)`` rounds rotary frequencies for good; the binding uses the true ones."""
    good = bind(in_bfloat16(build(family)))
    cast = build(family).to(torch.bfloat16)
    there_and_back = build(family).to(torch.bfloat16).float()
    positions, x = range(200, 204), torch.randn(1, 4, 16)

    for model in (cast, there_and_back):
        binding = bind(model)
        for spec, expected in zip(binding.layers, bind(build(family)).layers, strict=True):
            assert spec.rotary is not None
            assert expected.rotary is not None
            moved = spec.rotary.rotate(x.to(binding.dtype), positions).float()
            assert torch.allclose(moved, expected.rotary.rotate(x, positions), atol=0.05)
    assert torch.equal(run(bind(cast), IDS, CHUNKS), run(good, IDS, CHUNKS))


def test_rounded_frequencies_that_are_not_the_configs_are_refused() -> None:
    """When rounded frequencies cannot be told from the config, the remedy is to load in that dtype."""
    model = build("llama")
    model.model.rotary_emb.inv_freq.mul_(3.0)
    model.to(torch.bfloat16)

    with pytest.raises(UnsupportedModelError, match="from_pretrained"):
        bind(model)


def test_frequencies_changed_on_purpose_are_kept() -> None:
    """A rotary module whose fp32 frequencies were edited binds with the edited ones."""
    model = build("llama")
    model.model.rotary_emb.inv_freq.mul_(0.5)
    stock = stock_logits(model, IDS)

    assert exact(run(bind(model), IDS, CHUNKS), stock)


def test_casting_a_bound_model_is_noticed() -> None:
    """Tables and logs are made for one dtype; after a cast the binding says to bind again."""
    model = build("llama")
    binding = bind(model)
    model.to(torch.bfloat16)

    with pytest.raises(ClosedError, match="bfloat16"):
        binding.forward(IDS, DenseOracle(binding.layers))


def test_a_cast_of_a_bound_model_does_not_reach_the_originals_frequencies() -> None:
    """The original rotary module lies outside the module tree while bound."""
    model = build("llama")
    stock = stock_logits(model, IDS)
    binding = bind(model)
    model.double().float()
    model.to(torch.bfloat16)
    binding.unbind()

    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert stock_logits(model, IDS).shape == stock.shape


def test_logs_may_be_written_in_and_out_of_inference_mode() -> None:
    """A model bound and first run inside inference mode can be used outside, and the other way round."""
    model = build("llama")
    stock = stock_logits(model, IDS)
    with torch.inference_mode():
        binding = bind(model)
        context = DenseOracle(binding.layers)
        inside = run(binding, IDS, CHUNKS, context)
    outside = run(binding, IDS, CHUNKS)

    assert exact(inside, stock)
    assert exact(outside, stock)
    assert all(keys is not None and not keys.is_inference() for keys in context.keys_raw)


def test_the_text_part_of_a_composite_model_binds() -> None:
    """Gemma 3 with a vision tower: the tower keeps its attention, the text part is exact."""
    text = from_options(
        "Gemma3", head_dim=16, sliding_window=12, layer_types=["sliding_attention", "full_attention"] * 2
    ).config
    vision = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    config = transformers.Gemma3Config(
        text_config=text.to_dict(), vision_config=vision, mm_tokens_per_image=4
    )
    model = randomised(transformers.Gemma3ForConditionalGeneration, config)
    stock = stock_logits(model, IDS)
    tower = model.config.vision_config._attn_implementation
    binding = bind(model)

    assert model.config.vision_config._attn_implementation == tower
    assert exact(run(binding, IDS, CHUNKS), stock)


def test_context_survives_accelerate_hooks() -> None:
    """Hooks of a device map walk the keywords of a call; the context must arrive as it is."""
    from accelerate import dispatch_model

    model = build("llama")
    stock = stock_logits(model, IDS)
    model = dispatch_model(model, {"model": "cpu", "lm_head": "cpu"}, main_device="cpu", force_hooks=True)

    assert exact(run(bind(model), IDS, CHUNKS), stock)

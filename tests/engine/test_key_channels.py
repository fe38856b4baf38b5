"""Key channels: what is measured is what keys are, and what is gained by it where keys have large offsets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from agentmem.engine.key_channels import TEXT
from agentmem.engine.model import LanguageModel
from agentmem.memory.int8_log import readable
from agentmem.memory.rooms import Rooms
from agentmem.store import InMemoryHome
from support.session_agent import SessionAgent, log_tensors
from support.templates import tokenizer_for
from support.tiny_language_model import SMALL, language_model, plain_model


def biased() -> LanguageModel:
    """A model whose keys have biases many times what tells tokens apart, as Qwen's do."""
    model = plain_model("qwen2")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in model.model.layers:
            bias = layer.self_attn.k_proj.bias
            bias.copy_(torch.randn(bias.shape, generator=generator) * 40)
    return LanguageModel.wrap(model, tokenizer_for("chatml"), name="biased")


def keys_of(
    model: LanguageModel, ids: list[int], kv_dtype: str, channels: bytes | None = None
) -> list[Tensor]:
    """Raw keys of ids as an agent of that kind reads them."""
    layout = model.layout_for(kv_dtype) if channels is None else model.layout.in_int8(channels)
    store = InMemoryHome().create("ada", fingerprint={}, layout=layout, model="", facts={})
    store.begin()
    with model.turn(store.log, store.digests, SMALL.changed(dense_tokens=900, chunk_tokens=256)) as session:
        session.read(ids)
        session.memory.flush()
    log = readable(store.log, Rooms(torch.device("cpu")))
    found = []
    for layer, (heads, dim) in enumerate(log.layout.layers):
        out = torch.empty(heads, len(ids), dim, dtype=log.layout.dtype)
        log.read(layer, 0, len(ids), out, None)
        found.append(out.float())
    return found


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt-oss", "qwen3-yarn", "smollm3"])
def test_channels_are_those_of_the_text(family: str) -> None:
    """Sliding layers, sinks, NoPE and YaRN: mean and spread of the very keys that an agent reads."""
    model = language_model(family)
    ids = model.tokenizer(TEXT, add_special_tokens=False)["input_ids"][:256]
    channels = model.layout_for("int8").codec
    assert channels is not None
    offsets, factors = torch.frombuffer(bytearray(channels.channels), dtype=torch.bfloat16).float().chunk(2)

    keys = keys_of(model, ids, "model")

    wanted = torch.cat([k.mean(1).flatten() for k in keys])
    spread = torch.cat([k.std(1, correction=0).flatten() for k in keys])
    assert torch.allclose(offsets, wanted, rtol=0.01, atol=0.01)
    assert torch.allclose(factors, spread, rtol=0.02, atol=1e-4)


def test_they_are_measured_once() -> None:
    """One model, one measurement: its agents share what they are rounded by."""
    model = language_model()

    assert model.layout_for("int8") == model.layout_for("int8")
    assert model.layout_for("model") is model.layout


def test_offsets_do_not_drown_what_tells_tokens_apart() -> None:
    """With large key biases the error is a hundredth of the keys' spread; by a scale for the row alone, far more."""
    model = biased()
    ids = model.tokenizer("Half a league, half a league, half a league onward. " * 4)["input_ids"][:120]
    exact = keys_of(model, ids, "model")
    count = sum(heads * dim for heads, dim in model.layout.layers)
    plain = torch.cat([torch.zeros(count), torch.ones(count)]).bfloat16().view(torch.uint8).numpy().tobytes()

    def error(channels: bytes | None) -> float:
        found = keys_of(model, ids, "int8", channels)[
            0
        ]  # the first layer: later ones differ by what they read
        spread = exact[0] - exact[0].mean(1, keepdim=True)
        return float((found - exact[0]).norm() / spread.norm())

    assert error(None) < 0.015
    assert error(plain) > 5 * error(None)


def test_replies_stay_near_those_of_exact_keys() -> None:
    """Fact 1 is not promised of int8: with all rows read back, logits are off by less than a twentieth of their spread."""
    model = language_model()
    ids = list(range(10, 90))
    logits = []
    for kind in ("model", "int8"):
        agent = SessionAgent(model, InMemoryHome(), SMALL.changed(dense_tokens=900, kv_dtype=kind))
        agent.turn(ids[:60])
        logits.append(agent.turn(ids[60:], [5, 6, 7]))
        assert len(log_tensors(agent.store)) == 4

    off = (logits[0] - logits[1]).abs().max()
    assert 0 < off < 0.05 * logits[0].std()

"""Position interpolation and NTK-aware scaling against transformers' own models with those rotations."""

from __future__ import annotations

import pytest
import torch

from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.errors import ConfigError
from agentmem.memory.modes import mode
from agentmem.store import InMemoryHome
from support.session_agent import SessionAgent
from support.templates import tokenizer_for
from support.tiny_language_model import plain_model
from support.tiny_models import build, prompt, stock_logits

BASE = MemoryConfig(
    chunk_tokens=16, sink_tokens=4, window_tokens=16, recall_tokens=8, block_tokens=4, reselect_every=4
)
FACTOR = 4.0
THETA, HEAD = 10_000.0, 16
STOCK = {
    "position-interpolation": {"rope_type": "linear", "rope_theta": THETA, "factor": FACTOR},
    "ntk": {"rope_type": "default", "rope_theta": THETA * FACTOR ** (HEAD / (HEAD - 2))},
}
"""Mode -> the rope parameters with which transformers itself does the same."""


def model_of(family: str = "llama", trained: int = 24) -> LanguageModel:
    """A tiny bound model of the test weights, trained on ever so few tokens."""
    model = build(family, max_position_embeddings=trained)
    return LanguageModel.wrap(model, tokenizer_for("chatml"), name=family)


@pytest.mark.parametrize("name", STOCK)
def test_dense_logits_are_those_of_a_stretched_stock_model(name: str) -> None:
    """Beyond the trained length, over chunks, steps and two turns: as one pass of transformers, within 1e-4."""
    ids = prompt(80)[0].tolist()
    config = mode(name, BASE, tokens=90, factor=FACTOR)
    agent = SessionAgent(model_of(), InMemoryHome(), config)
    first, second = agent.turn(ids[:40], ids[40:43]), agent.reopened().turn(ids[43:77], ids[77:])
    wanted = stock_logits(
        build("llama", max_position_embeddings=96, rope_parameters=STOCK[name]), prompt(80)
    )[0]

    assert (torch.cat([first, second]) - wanted[[39, 40, 41, 42, 76, 77, 78, 79]]).abs().max() <= 1e-4


def test_turns_may_change_the_rotation_of_what_is_stored() -> None:
    """Keys are stored raw: a log written with one rotation is read with another, and back, on one model."""
    ids = prompt(60)[0].tolist()
    model = model_of(trained=64)
    own, stretched = mode("full", BASE, tokens=60), mode("ntk", BASE, tokens=60, factor=FACTOR)
    home = InMemoryHome()
    agent = SessionAgent(model, home, own)
    agent.turn(ids[:30])
    fork = agent.forked("twin")
    agent.config = stretched
    bent = agent.turn(ids[30:50])
    plain = fork.turn(ids[30:50])

    assert (bent - plain).abs().max() > 1e-3
    assert torch.allclose(plain, stock_logits(plain_of(64), prompt(60)[:, :50])[0, -1:], atol=1e-4)


def plain_of(trained: int) -> torch.nn.Module:
    """The same weights, unbound."""
    return build("llama", max_position_embeddings=trained)


def test_more_positions_than_the_stretch_gives_are_refused() -> None:
    """The engine's check knows the stretched length: trained length times factor."""
    model = model_of()
    model.check(mode("ntk", BASE, tokens=96, factor=FACTOR))
    with pytest.raises(ConfigError, match=r"96 tokens.*may take 97"):
        model.check(mode("ntk", BASE, tokens=97, factor=FACTOR))
    with pytest.raises(ConfigError, match="24 tokens"):
        model.check(mode("full", BASE, tokens=97))


def test_one_table_serves_all_lengths() -> None:
    """A longer context makes the table longer, a shorter one uses it: lengths do not pile up."""
    model = model_of()
    first = model.binding.stretched("ntk", FACTOR, 90)

    assert model.binding.stretched("ntk", FACTOR, 96) is first
    longer = model.binding.stretched("ntk", FACTOR, 9_000)
    assert model.binding.stretched("ntk", FACTOR, 90) is longer
    for one, other in zip(first, longer, strict=True):
        assert one.rotary is not None and other.rotary is not None
        x = torch.ones(1, 96, one.head_dim)
        assert torch.equal(one.rotary.rotate(x, range(96)), other.rotary.rotate(x, range(96)))


def test_rotations_that_choose_for_themselves_cannot_be_stretched() -> None:
    """Dynamic NTK picks its frequencies by length: refused by name, at the check."""
    model = LanguageModel.wrap(plain_model("llama-dynamic", trained=64), tokenizer_for("chatml"))
    with pytest.raises(ConfigError, match="dynamic"):
        model.check(mode("position-interpolation", BASE, tokens=96, factor=2.0))


@pytest.mark.parametrize(
    "options", [{"rope": "ntk"}, {"rope_factor": 2.0}, {"rope": "linear", "rope_factor": 1.0}]
)
def test_a_stretch_without_a_factor_is_refused(options: dict[str, object]) -> None:
    """And so is a factor without a stretch."""
    with pytest.raises(ConfigError, match="rope_factor"):
        MemoryConfig(**options)


def test_dense_modes_ask_for_their_numbers() -> None:
    """How long the context may become, and how far the rotation is stretched; the message says which."""
    with pytest.raises(ConfigError, match="tokens="):
        mode("full")
    with pytest.raises(ConfigError, match="factor="):
        mode("ntk", tokens=100)
    with pytest.raises(ConfigError, match="infllm"):
        mode("psychic")

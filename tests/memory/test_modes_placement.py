"""Reference modes against a statement of their formulas that rotates one query and one key at a time."""

from __future__ import annotations

from itertools import combinations
from typing import get_args

import pytest
import torch

from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.errors import ConfigError
from agentmem.memory.modes import mode
from agentmem.memory.placements import POSITION_RULES
from agentmem.store import InMemoryHome
from support.far_oracle import FarOracle
from support.session_agent import SessionAgent
from support.templates import tokenizer_for
from support.tiny_language_model import plain_model
from support.tiny_models import prompt

BASE = MemoryConfig(
    sink_tokens=3, window_tokens=9, recall_tokens=8, block_tokens=4, chunk_tokens=6, reselect_every=3
)
MODES = {
    "streaming": mode("streaming", BASE),
    "lm-infinite": mode("lm-infinite", BASE),
    "window": mode("window", BASE, budget=9),
}
CASES = [
    *(("llama", name) for name in MODES),
    ("qwen3-yarn", "streaming"),
    ("smollm3", "lm-infinite"),
    ("gemma2", "streaming"),
    ("gpt-oss", "lm-infinite"),
]
"""Families with full layers alone, a scaled rotation, NoPE layers, sliding layers and softcap, sinks."""


def model_of(family: str) -> LanguageModel:
    """A tiny bound model."""
    return LanguageModel.wrap(plain_model(family, trained=256), tokenizer_for("chatml"), name=family)


@pytest.mark.parametrize(("family", "name"), CASES)
def test_turns_equal_the_slow_statement(family: str, name: str) -> None:
    """Two turns with chunks and held steps, from within the window to far beyond it: logits within 1e-4."""
    model, ids = model_of(family), prompt(40, seed=5)[0].tolist()
    agent = SessionAgent(model, InMemoryHome(), MODES[name])
    oracle = FarOracle(model.binding, MODES[name])

    for read, steps in ((ids[:19], ids[19:26]), (ids[26:35], ids[35:])):
        found, wanted = agent.turn(read, steps), oracle.turn(read, steps)
        assert (found - wanted).abs().max() <= 1e-4
        agent = agent.reopened()


def test_modes_differ_from_each_other() -> None:
    """The comparison above would notice one placement in the place of another."""
    model, ids = model_of("llama"), prompt(40, seed=5)[0].tolist()
    logits = [SessionAgent(model, InMemoryHome(), config).turn(ids)[0] for config in MODES.values()]

    for first, second in combinations(logits, 2):
        assert (first - second).abs().max() > 1e-3


@pytest.mark.parametrize("name", MODES)
def test_forgotten_tokens_are_not_seen(name: str) -> None:
    """Whatever a forgotten turn said, as a sink or in the window, the next turn's logits are the same bits."""
    model, ids = model_of("llama"), prompt(40, seed=6)[0].tolist()
    logits = []
    for said in (ids[:6], ids[6:12]):
        agent = SessionAgent(model, InMemoryHome(), MODES[name])
        agent.turn(said)
        agent.store.forget([agent.store.turns()[0].id])
        logits.append(agent.turn(ids[12:24], ids[24:28]))

    assert torch.equal(*logits)


def test_chunks_larger_than_the_window_are_refused() -> None:
    """As InfLLM's code does: the message names both numbers."""
    with pytest.raises(ConfigError, match=r"= 13 exceeds window_tokens=12"):
        MODES["streaming"].changed(window_tokens=12, chunk_tokens=10)


def test_the_engine_knows_how_far_a_mode_reaches() -> None:
    """The window and what may be appended to it must fit the model's positions, and the cache's places too."""
    model, config = model_of("llama"), MODES["streaming"]
    model.check(config.changed(window_tokens=248))  # positions up to 247 + 6 + 3 = 256 in all
    with pytest.raises(ConfigError, match=r"256 tokens.*may take 257"):
        model.check(config.changed(window_tokens=249))
    model.check(config.changed(window_tokens=248, sink_tokens=8))
    with pytest.raises(ConfigError, match="may take 258"):
        model.check(config.changed(window_tokens=248, sink_tokens=10))


def test_placements_without_recall_refuse_it() -> None:
    """StreamingLLM and LM-Infinite recall nothing."""
    with pytest.raises(ConfigError, match="recall_tokens=0"):
        MODES["streaming"].changed(recall_tokens=4)


def test_every_position_rule_can_be_configured() -> None:
    """The configuration's names are the registry's."""
    assert set(POSITION_RULES) == set(get_args(MemoryConfig.model_fields["positions"].annotation))

"""Turns of an agent whose memory runs on Triton's kernels: as with torch's operations, and resumed as never stopped."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.store import DiskHome, InMemoryHome
from agentmem_kernels import backends
from support.session_agent import SessionAgent, same_bits
from support.templates import tokenizer_for
from support.tiny_language_model import plain_model
from support.tiny_models import prompt

CONFIG = MemoryConfig(
    sink_tokens=5,
    window_tokens=10,
    recall_tokens=16,
    block_tokens=4,
    chunk_tokens=16,
    reselect_every=2,
    dense_tokens=16,
)
IDS: list[int] = prompt(60, seed=5)[0].tolist()
TURNS = [(IDS[:48], []), (IDS[48:54], IDS[54:57])]
RULES = ["two-stage-edges", "mean-key"]


@cache
def model_on(device: str, dtype: str) -> LanguageModel:
    """The same random weights on either device."""
    return LanguageModel.wrap(plain_model(dtype=dtype).to(device), tokenizer_for("chatml"), name="tiny-llama")


def lived(agent: SessionAgent, *, resumed: bool = False) -> tuple[list[torch.Tensor], SessionAgent]:
    """Two turns' logits, on the CPU, and the agent as it is then."""
    logits = []
    for read, steps in TURNS:
        logits.append(agent.turn(read, steps).cpu())
        agent = agent.reopened() if resumed else agent
    return logits, agent


@pytest.mark.parametrize("name", RULES)
def test_a_turn_on_triton_is_a_turn_on_torch(device: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """fp32 logits: other sums, the same choices."""
    config = CONFIG.changed(selector=name)
    monkeypatch.setattr(backends, "_AUTO", "torch")
    expected, _ = lived(SessionAgent(model_on(device, "float32"), InMemoryHome(), config))
    monkeypatch.setattr(backends, "_AUTO", "triton")
    found, _ = lived(SessionAgent(model_on(device, "float32"), InMemoryHome(), config))

    for one, two in zip(found, expected, strict=True):
        assert torch.allclose(one, two, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_resumed_on_triton_as_never_stopped(
    device: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, logits and K/V, through files."""
    if device == "cpu" and dtype != "float32":
        pytest.skip("interpreting takes long; one dtype is enough there")
    monkeypatch.setattr(backends, "_AUTO", "triton")
    home = DiskHome(tmp_path)
    one, never = lived(SessionAgent(model_on(device, dtype), home, CONFIG, "never"))
    two, often = lived(SessionAgent(model_on(device, dtype), home, CONFIG, "often"), resumed=True)

    assert same_bits(one, two) and same_bits(never.kv(), often.kv())

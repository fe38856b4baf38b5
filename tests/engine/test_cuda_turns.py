"""Whole turns on a GPU: every rule and every mode as on the CPU, and resumed there as never stopped."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

from agentmem.agent import AgentMemory
from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.memory.modes import MODES, mode
from agentmem.memory.selectors import SELECTORS
from agentmem.store import DiskHome, InMemoryHome
from support.session_agent import SessionAgent, same_bits
from support.templates import tokenizer_for
from support.tiny_language_model import plain_model
from support.tiny_models import prompt
from support.two_lives import LIVES, TURNS, play

pytestmark = pytest.mark.gpu

CONFIG = MemoryConfig(
    sink_tokens=5,
    window_tokens=10,
    recall_tokens=16,
    block_tokens=4,
    chunk_tokens=12,
    reselect_every=4,
    dense_tokens=16,
)
IDS: list[int] = prompt(160, seed=5)[0].tolist()
TURNS_OF_IDS = [(IDS[:90], IDS[90:92]), (IDS[92:104], IDS[104:111])]
STRETCH = {"full": {"tokens": 512}, "position-interpolation": {"tokens": 512, "factor": 2}}
CONFIGS = {name: CONFIG.changed(selector=name) for name in SELECTORS} | {
    f"mode {name}": mode(
        name, CONFIG, **STRETCH.get(name, STRETCH["position-interpolation"] if name == "ntk" else {})
    )
    for name in MODES
}


@cache
def on(device: str, dtype: str = "float32") -> LanguageModel:
    """The same random weights on either device."""
    model = plain_model(dtype=dtype).to(device)
    return LanguageModel.wrap(model, tokenizer_for("chatml"), name="tiny-llama")


def lived(agent: SessionAgent, *, resumed: bool = False) -> tuple[list[torch.Tensor], SessionAgent]:
    """Two turns' logits, on the CPU, and the agent as it is then."""
    logits = []
    for read, steps in TURNS_OF_IDS:
        logits.append(agent.turn(read, steps).cpu())
        agent = agent.reopened() if resumed else agent
    return logits, agent


@pytest.mark.parametrize("name", CONFIGS)
def test_a_turn_on_cuda_is_a_turn_on_the_cpu(name: str) -> None:
    """fp32 logits of both devices, whatever chooses and places."""
    here, _ = lived(SessionAgent(on("cpu"), InMemoryHome(), CONFIGS[name]))
    there, _ = lived(SessionAgent(on("cuda"), InMemoryHome(), CONFIGS[name]))

    for one, two in zip(here, there, strict=True):
        assert torch.allclose(one, two, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_resumed_on_cuda_as_never_stopped(name: str, tmp_path: Path) -> None:
    """Bit for bit, logits and K/V, through files."""
    home = DiskHome(tmp_path)
    one, never = lived(SessionAgent(on("cuda"), home, CONFIGS[name], "never"))
    two, often = lived(SessionAgent(on("cuda"), home, CONFIGS[name], "often"), resumed=True)

    assert same_bits(one, two) and same_bits(never.kv(), often.kv())


@pytest.mark.parametrize("name", LIVES)
def test_an_agent_lives_on_cuda(name: str, tmp_path: Path) -> None:
    """Chats, observations, sampled replies: closed after every turn as held open, nothing read again."""
    dtype, config = LIVES[name]
    model, kept, closed = on("cuda", dtype), [], []
    with AgentMemory.resume("never", model=model, home=tmp_path, config=config) as memory:
        kept += [play(memory, model, turn) for turn in range(TURNS)]
    for turn in range(TURNS):
        with AgentMemory.resume("often", model=model, home=tmp_path, config=config) as memory:
            closed.append(play(memory, model, turn))
            assert closed[-1]["reread"] == 0

    for one, two in zip(kept, closed, strict=True):
        assert one["ids"] == two["ids"] and one["kv"] == two["kv"] and one["logits"] == two["logits"]


def test_an_agent_moves_between_devices(tmp_path: Path) -> None:
    """What was read on a GPU goes on on a CPU, and the reply is the one the GPU gives."""
    home, (read, steps) = DiskHome(tmp_path), TURNS_OF_IDS[1]
    agent = SessionAgent(on("cuda"), home, CONFIG)
    agent.turn(*TURNS_OF_IDS[0])
    agent.store.close()
    home.fork("ada", "eve")

    there = SessionAgent(on("cuda"), home, CONFIG, "ada").turn(read, steps)
    here = SessionAgent(on("cpu"), home, CONFIG, "eve").turn(read, steps)
    assert torch.allclose(there.cpu(), here, atol=1e-3, rtol=0)

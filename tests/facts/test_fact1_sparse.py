"""Beyond ``dense_tokens`` a step attends to exactly what the rule says, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.store import DiskHome, InMemoryHome
from support.session_agent import SessionAgent
from support.sparse_oracle import SparseOracle
from support.templates import tokenizer_for
from support.tiny_language_model import plain_model
from support.tiny_models import prompt

CONFIG = MemoryConfig(
    sink_tokens=5,
    window_tokens=10,
    recall_tokens=20,
    block_tokens=4,
    chunk_tokens=24,
    reselect_every=4,
    dense_tokens=16,
)
FAMILIES = ("llama", "qwen3-yarn", "smollm3", "gemma2", "gpt-oss", "qwen2-mixed")


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> LanguageModel:
    """One family with full layers alone, with NoPE layers, or with sliding layers, softcap or sinks."""
    bound = plain_model(request.param, trained=256)
    return LanguageModel.wrap(bound, tokenizer_for("chatml"), name=request.param)


def test_sparse_turns_equal_the_slow_oracle(model: LanguageModel, tmp_path: Path) -> None:
    """Three turns on disk, resumed between, with steps past a reselection: logits within 1e-4."""
    ids = prompt(120, seed=5)[0].tolist()
    agent = SessionAgent(model, DiskHome(tmp_path), CONFIG)
    oracle = SparseOracle(model.binding, CONFIG)
    turns = [(ids[:14], ids[14:17]), (ids[17:80], ids[80:91]), (ids[91:112], ids[112:])]
    for read, steps in turns:
        found, wanted = agent.turn(read, steps), oracle.turn(read, steps)
        assert (found - wanted).abs().max() <= 1e-4
        agent = agent.reopened()


def test_the_choice_matters(model: LanguageModel) -> None:
    """Without recall the logits are others: the comparison above would notice a wrong block."""
    ids = prompt(120, seed=6)[0].tolist()
    logits = [
        SessionAgent(model, InMemoryHome(), CONFIG.changed(recall_tokens=recall)).turn(ids)
        for recall in (0, 20)
    ]

    assert (logits[0] - logits[1]).abs().max() > 1e-2


def test_forgotten_tokens_are_never_attended_to(model: LanguageModel, tmp_path: Path) -> None:
    """In whole blocks, half blocks and the window: as the oracle that hides exactly those keys."""
    ids = prompt(130, seed=7)[0].tolist()
    agent = SessionAgent(model, DiskHome(tmp_path), CONFIG)
    oracle = SparseOracle(model.binding, CONFIG)
    stretches = [ids[:33], ids[33:46], ids[46:80], ids[80:83], ids[83:100]]
    for stretch in stretches:
        agent.turn(stretch)
        oracle.turn(stretch)
    turns = agent.store.turns()
    agent.store.forget([turns[1].id, turns[3].id])
    oracle.dead = {*range(33, 46), *range(80, 83)}

    for read, steps in ((ids[100:110], ids[110:117]), (ids[117:120], ids[120:])):
        found, wanted = agent.turn(read, steps), oracle.turn(read, steps)
        assert (found - wanted).abs().max() <= 1e-4
        agent = agent.reopened()


def test_shares_are_the_attention_that_blocks_received(model: LanguageModel) -> None:
    """Recalled mass and each block's share equal those that the oracle's own softmax gives."""
    ids = prompt(90, seed=8)[0].tolist()
    agent = SessionAgent(model, InMemoryHome(), CONFIG)
    oracle = SparseOracle(model.binding, CONFIG)
    agent.turn(ids[:54])
    oracle.turn(ids[:54])
    agent.store.begin()
    oracle.measure = True
    with model.turn(agent.store.log, agent.store.digests, CONFIG) as session:
        session.read(ids[54:74], measure=True)
        for token in ids[74:84]:
            session.step(token)
        shares = session.memory.shares
    oracle.turn(ids[54:74], ids[74:84])

    total = sum(oracle.mass.values())
    assert shares.recalled_mass == pytest.approx(total / oracle.rows, abs=1e-5)
    found = dict(shares.top(100))
    assert found == pytest.approx({b: m / total for b, m in oracle.mass.items()}, abs=1e-4)
    assert sum(found.values()) <= 1 + 1e-9
    assert 0 < shares.recalled_mass < 1

"""What the first default rule said before there were others: replies, shares and state ids noted then."""

from __future__ import annotations

import pytest

from agentmem.agent.state_id import settings_of, state_id
from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.store import InMemoryHome
from support.session_agent import SessionAgent
from support.templates import tokenizer_for
from support.tiny_language_model import SMALL, plain_model
from support.tiny_models import prompt

FIRST = SMALL.changed(selector="two-stage")
GOLDEN = {
    "llama": (
        [66, 365, 314, 34, 309, 397, 254, 185, 128, 6, 400, 217, 217, 20, 237, 178, 208, 20, 12, 70],
        [3.234, -1.431, -0.441, 2.929, -0.541, 1.183],
        0.4273,
        {4: 0.252, 5: 0.204, 0: 0.157, 2: 0.127},
    ),
    "gpt-oss": (
        [97, 316, 252, 52, 311, 78, 256, 311, 256, 96, 107, 336, 378, 101, 78, 101, 78, 170, 101, 328],
        [1.351, -3.037, 3.47, -1.902, -2.022, -0.704],
        0.552,
        {1: 0.325, 4: 0.206, 0: 0.177, 5: 0.112},
    ),
}
"""Family -> greedy ids, the first logits behind them, recalled mass, the largest shares."""


@pytest.mark.parametrize("family", GOLDEN)
def test_a_turn_of_the_first_rule(family: str) -> None:
    """Greedy decoding past two reselections: the same ids, logits, blocks and shares."""
    ids, last, mass, shares = GOLDEN[family]
    model = LanguageModel.wrap(plain_model(family, trained=256), tokenizer_for("chatml"))
    words = prompt(120, seed=11)[0].tolist()
    agent = SessionAgent(model, InMemoryHome(), FIRST)
    agent.turn(words[:70])
    agent.store.begin()
    told = []
    with model.turn(agent.store.log, agent.store.digests, FIRST) as session:
        logits = session.read(words[70:100], measure=True)
        for _ in range(20):
            told.append(int(logits.argmax()))
            logits = session.step(told[-1])

    assert told == ids
    assert logits[:6].tolist() == pytest.approx(last, abs=2e-3)
    assert session.memory.shares.recalled_mass == pytest.approx(mass, abs=1e-3)
    assert dict(session.memory.shares.top(4)) == pytest.approx(shares, abs=2e-3)
    assert session.memory.selections == 4


def test_state_ids_stay_what_they_were() -> None:
    """Options that came later are not part of a state's name while they are at their defaults."""
    name = state_id(
        parent=None,
        uuid="0" * 32,
        token_ids=[1, 2, 3],
        pending=None,
        settings=settings_of(MemoryConfig(selector="two-stage", block_tokens=32, recall_tokens=1024)),
        fingerprint={"a": "b"},
    )
    stretched = settings_of(MemoryConfig(rope="ntk", rope_factor=2.0))

    assert name == "4747aac19fef0f13a4a218559c948609"
    assert (stretched["rope"], stretched["rope_factor"]) == ("ntk", 2.0)

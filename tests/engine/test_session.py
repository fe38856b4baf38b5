"""A session: ids through the model in chunks, then one by one."""

from __future__ import annotations

import pytest
import torch

from agentmem.store import InMemoryHome
from support.session_agent import SessionAgent
from support.tiny_language_model import SMALL, language_model, plain_model
from support.tiny_models import prompt, stock_logits
from support.two_lives import counted


@pytest.mark.parametrize("length", [1, 15, 16, 17, 40])
def test_reading_gives_the_logits_behind_the_last_id(length: int) -> None:
    """Whatever is left for the last chunk; progress is told after each; every id is forwarded once."""
    model = language_model()
    ids = prompt(length)[0].tolist()
    agent = SessionAgent(model, InMemoryHome(), SMALL)
    told: list[tuple[int, int]] = []
    agent.store.begin()
    with (
        counted(model.binding.model) as lengths,
        model.turn(agent.store.log, agent.store.digests, SMALL) as session,
    ):
        logits = session.read(ids, on_progress=lambda *figures: told.append(figures))
        assert (session.length, session.forwarded) == (length, length)
        session.step(5)
        assert (session.length, session.forwarded) == (length + 1, length + 1)

    wanted = stock_logits(plain_model(), torch.tensor([ids]))[0, -1]
    assert logits.shape == wanted.shape
    assert float((logits - wanted).abs().max()) <= 1e-4
    sizes = [SMALL.chunk_tokens] * (length // 16) + ([length % 16] if length % 16 else [])
    assert lengths == [*sizes, 1]
    assert told == [(min((n + 1) * 16, length), length) for n in range(len(sizes))]


def test_a_turn_may_begin_with_a_step() -> None:
    """Nothing to read first: the step lays out its own working set."""
    model = language_model()
    ids = prompt(30)[0].tolist()
    agent = SessionAgent(model, InMemoryHome(), SMALL)
    agent.turn(ids)
    agent.store.begin()
    with model.turn(agent.store.log, agent.store.digests, SMALL) as session:
        logits = session.step(7)

    wanted = stock_logits(plain_model(), torch.tensor([[*ids, 7]]))[0, -1]
    assert float((logits - wanted).abs().max()) <= 1e-4


def test_the_callers_gradient_mode_is_left_alone() -> None:
    """Logits carry no gradient; inference mode ends with the call."""
    model = language_model()
    agent = SessionAgent(model, InMemoryHome(), SMALL)
    logits = agent.turn([5, 6, 7])

    assert not logits.requires_grad
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    with torch.inference_mode():
        again = SessionAgent(model, InMemoryHome(), SMALL).turn([5, 6, 7])
    assert torch.equal(logits, again)

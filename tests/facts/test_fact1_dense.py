"""Fact 1: within ``dense_tokens`` the logits equal the stock model's, on every family, whatever happens between."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.store import DiskHome, InMemoryHome
from support.session_agent import SessionAgent
from support.templates import tokenizer_for
from support.tiny_language_model import plain_model
from support.tiny_models import FAMILIES, prompt, stock_logits

TOKENS = 80
DENSE = MemoryConfig(
    sink_tokens=4,
    window_tokens=9,
    recall_tokens=8,
    block_tokens=8,
    chunk_tokens=16,
    reselect_every=8,
    dense_tokens=TOKENS,
)
ALL_RECALLED = DENSE.changed(dense_tokens=0, recall_tokens=64, chunk_tokens=12)


class Twin:
    """A bound model, and the stock one's opinion of any ids."""

    def __init__(self, family: str) -> None:
        bound = plain_model(family, trained=256)
        self.bound = LanguageModel.wrap(bound, tokenizer_for("chatml"), name=family)
        self.stock = plain_model(family, trained=256)

    def logits(self, ids: list[int]) -> Tensor:
        """The stock model's logits behind each id (T, V)."""
        return stock_logits(self.stock, torch.tensor([ids]))[0]


@pytest.fixture(scope="module", params=FAMILIES)
def twin(request: pytest.FixtureRequest) -> Twin:
    """One family, bound and stock."""
    return Twin(request.param)


def close(found: Tensor, wanted: Tensor) -> bool:
    """Equal within 1e-4."""
    return found.shape == wanted.shape and bool((found - wanted).abs().max() <= 1e-4)


def test_prefill_decode_resume_rewind_and_fork_equal_the_stock_model(twin: Twin, tmp_path: Path) -> None:
    """Read in chunks, decode, close, open, go on, rewind, fork: the logits are always the stock model's."""
    ids, other = prompt(TOKENS, seed=1)[0].tolist(), prompt(30, seed=2)[0].tolist()
    wanted = twin.logits(ids)
    agent = SessionAgent(twin.bound, DiskHome(tmp_path), DENSE)

    assert close(agent.turn(ids[:40], ids[40:46]), wanted[39:46])
    assert agent.store.head is not None
    half_way = agent.store.head.state_id
    agent = agent.reopened()
    assert close(agent.turn(ids[46:60], ids[60:]), wanted[59:])

    fork = agent.forked("eve")
    fork.store.rewind(half_way)
    assert close(fork.turn(other[:20], other[20:]), twin.logits(ids[:46] + other)[65:])
    agent.store.rewind(half_way)
    assert close(agent.turn(ids[46:60], ids[60:]), wanted[59:])


@pytest.mark.parametrize("chunk", [1, 33, 80])
def test_any_chunk_size_equals_the_stock_model(twin: Twin, chunk: int) -> None:
    """Logits behind the last prompt token are the stock model's, in whatever chunks it is read."""
    ids = prompt(TOKENS, seed=3)[0].tolist()
    config = DENSE.changed(chunk_tokens=chunk, reselect_every=4)
    agent = SessionAgent(twin.bound, InMemoryHome(), config)

    assert close(agent.turn(ids[: TOKENS - 3], ids[TOKENS - 3 :]), twin.logits(ids)[TOKENS - 4 :])


def test_a_sparse_step_that_recalls_every_block_equals_the_stock_model(twin: Twin) -> None:
    """Sinks, all blocks, window and new tokens, laid out anew at each chunk, are the whole past in order."""
    ids = prompt(72, seed=4)[0].tolist()
    agent = SessionAgent(twin.bound, InMemoryHome(), ALL_RECALLED)
    wanted = twin.logits(ids)

    assert close(agent.turn(ids[:30]), wanted[29:30])
    assert close(agent.turn(ids[30:50], ids[50:]), wanted[49:])

"""InfLLM's mode against a statement of its rule, key by key; and its running state as a thing that is kept."""

from __future__ import annotations

import pytest
import torch

from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.memory.modes import mode
from agentmem.memory.rotation import LayerSpec
from agentmem.memory.selectors import BlockView
from agentmem.memory.source import RuleState
from agentmem.store import InMemoryHome
from support.far_oracle import FarOracle
from support.session_agent import SessionAgent
from support.templates import tokenizer_for
from support.tiny_language_model import plain_model
from support.tiny_models import prompt

CONFIG = MemoryConfig(
    sink_tokens=3,
    window_tokens=9,
    recall_tokens=12,
    block_tokens=6,
    chunk_tokens=6,
    dense_tokens=9,
    selector="infllm",
    positions="infllm",
    reselect_every=0,
)


class Choices:
    """A witness that notes each layer's blocks, and that all heads got the same ones."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, list[int]]] = []

    def saw(
        self,
        spec: LayerSpec,
        queries_raw: torch.Tensor,
        scaling: float,
        chosen: torch.Tensor,
        blocks: BlockView,
    ) -> None:
        """One selection."""
        assert bool((chosen == chosen[:1]).all())
        if chosen.shape[1]:
            self.seen.append((spec.index, chosen[0].tolist()))


def model_of(family: str = "llama") -> LanguageModel:
    """A tiny bound model."""
    return LanguageModel.wrap(plain_model(family, trained=256), tokenizer_for("chatml"), name=family)


def state_of(agent: SessionAgent) -> RuleState:
    """What the newest turn was committed with."""
    state = agent.store.digests.states.last("infllm-4:sinks=3:block=6")
    assert state is not None
    return state


@pytest.mark.parametrize(
    ("family", "reselect"), [("llama", 0), ("llama", 3), ("qwen3-yarn", 0), ("smollm3", 0), ("gpt-oss", 0)]
)
def test_turns_equal_the_slow_statement(family: str, reselect: int) -> None:
    """Three turns, from within the window on, resumed between: the same blocks, logits within 1e-4."""
    model, ids = model_of(family), prompt(62, seed=5)[0].tolist()
    config = CONFIG.changed(reselect_every=reselect)
    agent, oracle = SessionAgent(model, InMemoryHome(), config), FarOracle(model.binding, config)
    for read, steps in ((ids[:7], ids[7:9]), (ids[9:38], ids[38:45]), (ids[45:56], ids[56:])):
        found, wanted = agent.turn(read, steps), oracle.turn(read, steps)
        assert (found - wanted).abs().max() <= 1e-4
        agent = agent.reopened()
    assert oracle.chosen


def test_the_blocks_are_those_of_the_statement() -> None:
    """One set per layer and chunk; with three blocks or more to choose two from."""
    model, ids = model_of(), prompt(70, seed=8)[0].tolist()
    agent, oracle, choices = (
        SessionAgent(model, InMemoryHome(), CONFIG),
        FarOracle(model.binding, CONFIG),
        Choices(),
    )
    oracle.turn(ids[:64], ids[64:])
    agent.store.begin()
    with model.turn(agent.store.log, agent.store.digests, CONFIG, choices) as session:
        session.read(ids[:64])
        for token in ids[64:]:
            session.step(token)
        shares = session.memory.shares

    assert choices.seen == oracle.chosen
    assert {block for block, _ in shares.top(100)} <= {
        block for _, blocks in oracle.chosen for block in blocks
    }
    assert 0 < shares.recalled_mass < 1
    assert len({tuple(blocks) for _, blocks in choices.seen}) > 5


def test_the_state_is_the_attention_that_tokens_received() -> None:
    """One column per token of the window and its unfinished block, one row per query head: as the oracle's sums."""
    model, ids = model_of(), prompt(40, seed=5)[0].tolist()
    agent, oracle = SessionAgent(model, InMemoryHome(), CONFIG), FarOracle(model.binding, CONFIG)
    agent.turn(ids[:34], ids[34:])
    oracle.turn(ids[:34], ids[34:])
    state = state_of(agent)

    assert (state.first, len(state.closed), state.start) == (0, 4, 27)
    rows = [(spec.index, head) for spec in model.binding.layers for head in range(spec.num_q_heads)]
    assert state.running.shape == (len(rows), 40 - 27)
    for row, (layer, head) in enumerate(rows):
        wanted = [oracle._received[layer][head, token] for token in range(27, 40)]
        assert state.running[row].tolist() == pytest.approx(wanted, abs=1e-5)
    assert state.closed.shape == (4, len(rows) * 4)


def test_other_rules_keep_nothing() -> None:
    """Only a rule that declares running state is committed with one."""
    agent = SessionAgent(model_of(), InMemoryHome(), CONFIG.changed(selector="two-stage"))
    agent.turn(prompt(40)[0].tolist())

    assert all(kept.state is None for kept in agent.store._agent.kept.values())  # type: ignore[attr-defined]


def test_digests_are_made_again_from_what_was_kept() -> None:
    """Another rule's turn empties the digests; InfLLM's are then the same bits as before, from all turns' states."""
    model, ids = model_of(), prompt(80, seed=3)[0].tolist()
    agent = SessionAgent(model, InMemoryHome(), CONFIG)
    agent.turn(ids[:40])
    agent.turn(ids[40:60])
    before = [part.clone() for layer in range(2) for part in agent.store.digests.parts(layer)]
    agent.store.digests.select("something else")
    assert agent.store.digests.count == 0
    agent.store.begin()
    with model.turn(agent.store.log, agent.store.digests, CONFIG) as session:
        session.read(ids[60:61])
    after = [part[:, : before[0].shape[1]] for layer in range(2) for part in agent.store.digests.parts(layer)]

    assert before[0].shape[1] == 7 * 2, "seven closed blocks, two query heads per KV head"
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_blocks_closed_under_another_rule_have_their_mean_key() -> None:
    """An agent that changes over to InfLLM starts with what can be known: no received attention."""
    model, ids = model_of(), prompt(50, seed=3)[0].tolist()
    agent = SessionAgent(model, InMemoryHome(), CONFIG.changed(selector="two-stage"))
    agent.turn(ids[:40])
    agent.config = CONFIG
    agent.turn(ids[40:48])
    (digests,) = agent.store.digests.parts(0)
    keys_raw = torch.empty(2, 24, 16)
    agent.store.log.read(0, 3, 27, keys_raw, None)
    wanted = keys_raw.view(2, 4, 6, 16).mean(2).repeat_interleave(2, dim=1)

    assert torch.allclose(digests[:, :8], wanted, atol=1e-6)
    assert len(state_of(agent).closed) == 1, "the block that left the window in the new turn"


def test_the_paper_mode_has_the_released_numbers() -> None:
    """Blocks of 128, a new choice for every token, and the budget of the base to the token."""
    config = mode("infllm")

    assert (config.block_tokens, config.reselect_every, config.dense_tokens) == (128, 0, config.window_tokens)
    assert config.budget == MemoryConfig().budget
    assert mode("infllm", budget=64 + 4096 + 4096).recall_tokens == 4096


def test_a_turn_that_drops_tokens_drops_what_they_received() -> None:
    """After a truncation no column speaks of a token that is gone, and the next turn goes on from there."""
    model, ids = model_of(), prompt(60, seed=3)[0].tolist()
    agent = SessionAgent(model, InMemoryHome(), CONFIG)
    agent.turn(ids[:30])
    agent.store.begin()
    with model.turn(agent.store.log, agent.store.digests, CONFIG) as session:
        session.read(ids[30:50])
        session.memory.truncate(32)
        session.read(ids[50:54])
        session.memory.flush()
        kept = agent.store.digests.states.kept  # type: ignore[attr-defined]
    assert kept.start + kept.running.shape[1] == 36
    assert bool((kept.running.sum(0) > 0).all())

"""A language model: what it leases to turns, what it says of itself, what does not fit it."""

from __future__ import annotations

import pytest
import torch

from agentmem.engine.fingerprint import state_dict_digest
from agentmem.engine.model import LanguageModel
from agentmem.errors import ConfigError
from agentmem.store import InMemoryHome
from support.session_agent import SessionAgent
from support.templates import tokenizer_for
from support.tiny_language_model import SMALL, plain_model
from support.tiny_models import stock_logits


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """A model of this file's own."""
    return LanguageModel.wrap(plain_model(), tokenizer_for("chatml"))


def agent_of(model: LanguageModel) -> SessionAgent:
    """A new agent."""
    agent = SessionAgent(model, InMemoryHome(), SMALL)
    agent.store.begin()
    return agent


def test_turns_hand_their_buffers_on(model: LanguageModel) -> None:
    """One after the other: the same buffers. At once: buffers of their own. Another size: the old are let go."""
    store, config = agent_of(model).store, SMALL.changed(selector="two-stage")
    with model.turn(store.log, store.digests, config) as first:
        used = first.memory._workspace
        with model.turn(store.log, store.digests, config) as second:
            assert second.memory._workspace is not used
    with model.turn(store.log, store.digests, config.changed(selector="two-stage-edges")) as third:
        assert third.memory._workspace in (used, second.memory._workspace)
    with model.turn(store.log, store.digests, config.changed(window_tokens=40)) as wider:
        assert wider.memory._workspace.size.past > used.size.past
    assert model._workspaces == [wider.memory._workspace]


def test_a_turn_that_fails_gives_its_buffers_back(model: LanguageModel) -> None:
    """Whatever happens inside."""
    store = agent_of(model).store
    used = []

    def fail() -> None:
        with model.turn(store.log, store.digests, SMALL) as session:
            used.append(session.memory._workspace)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert used[0] in model._workspaces


def test_the_fingerprint_names_what_changes_keys_and_values() -> None:
    """Weights, RoPE, template, dtype; not how the model happens to be held."""
    base = LanguageModel.wrap(plain_model(), tokenizer_for("chatml")).fingerprint
    again = LanguageModel.wrap(plain_model(), tokenizer_for("chatml"), name="other").fingerprint
    assert again == base

    def differing(other: LanguageModel) -> set[str]:
        return {field for field in base if base[field] != other.fingerprint[field]}

    assert differing(LanguageModel.wrap(plain_model(seed=1), tokenizer_for("chatml"))) == {"weights"}
    yarn = LanguageModel.wrap(plain_model("llama-yarn"), tokenizer_for("chatml"))
    assert {"rope", "config"} <= differing(yarn)
    half = LanguageModel.wrap(plain_model(dtype="bfloat16"), tokenizer_for("chatml"))
    assert {"kv_dtype", "weights"} <= differing(half)
    assert "chat_template" in differing(LanguageModel.wrap(plain_model(), tokenizer_for("smollm2")))


def test_one_changed_weight_changes_the_digest() -> None:
    """The least bit of any tensor, scalars included; moving or copying does not."""
    model = plain_model()
    before = state_dict_digest(model)
    assert state_dict_digest(plain_model()) == before
    model.register_buffer("scale", torch.tensor(1.0))
    scaled = state_dict_digest(model)
    model.scale.add_(1e-6)
    assert len({before, scaled, state_dict_digest(model)}) == 3


def test_an_end_of_reply_is_whatever_the_model_says() -> None:
    """One id, several or none in its generation config; the template's own end always counts."""
    tokenizer = tokenizer_for("chatml")
    for eos, wanted in ((None, set()), (11, {11}), ([11, 12], {11, 12})):
        model = plain_model()
        assert model.generation_config is not None
        model.generation_config.eos_token_id = eos
        stops = LanguageModel.wrap(model, tokenizer).template.stop_ids
        assert wanted | {tokenizer.eos_token_id} <= stops
        assert not ({11, 12} - wanted) & stops


def test_what_does_not_fit_is_refused_with_the_numbers(model: LanguageModel) -> None:
    """The message says how many positions there are and how many would be needed."""
    model.check(SMALL)
    with pytest.raises(ConfigError, match=r"1024.*may take 2000"):
        model.check(SMALL.changed(dense_tokens=2000))
    with pytest.raises(ConfigError, match="selector"):
        model.check(SMALL.changed(selector="magic"))


def test_rotary_tables_that_end_early_are_a_limit_too() -> None:
    """longrope: beyond its short factors positions mean something else, so the working set must end before."""
    model = LanguageModel.wrap(plain_model("phi3-longrope", trained=256), tokenizer_for("chatml"))
    assert model.binding.max_positions == 128 < model.binding.trained_length
    with pytest.raises(ConfigError, match="128"):
        model.check(SMALL.changed(dense_tokens=129))
    model.check(SMALL.changed(dense_tokens=128))


def test_a_bound_model_leaves_others_alone(model: LanguageModel) -> None:
    """Its own weights in an unbound instance give stock logits while agents run on it."""
    agent = SessionAgent(model, InMemoryHome(), SMALL)
    ids = [5, 6, 7, 8]
    logits = agent.turn(ids)

    assert torch.allclose(stock_logits(plain_model(), torch.tensor([ids]))[0, -1], logits[0], atol=1e-4)

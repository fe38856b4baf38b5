"""The profile says what the model can do, and nothing that is not known."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any, get_type_hints

import pytest
from langchain_core.language_models import ModelProfile
from langchain_core.language_models.fake_chat_models import FakeListChatModel

from agentmem import MemoryConfig
from langchain_agentmem.model_profile import MEASURED_TOKENS, model_profile
from support.tiny_language_model import language_model


def test_langchain_knows_every_key() -> None:
    """No key is one that LangChain warns about, and the profile suits a chat model as it is."""
    profile = model_profile(512, language_model=language_model(), config=MemoryConfig())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = FakeListChatModel(responses=["hi"], profile=profile)

    assert model.profile == profile
    assert set(profile) <= set(get_type_hints(ModelProfile))


def test_text_is_all_it_reads_and_writes() -> None:
    """Every other kind of input and output is denied, not left open."""
    profile: dict[str, Any] = dict(model_profile(512))
    kinds = [key for key in profile if key.endswith(("_inputs", "_outputs", "_message"))]

    assert {key for key in kinds if profile[key]} == {"text_inputs", "text_outputs"}
    assert {key for key in get_type_hints(ModelProfile) if key.endswith(("_inputs", "_outputs"))} <= set(
        kinds
    )


def test_the_context_is_what_was_measured() -> None:
    """A memory that recalls takes as long a history as was measured; the reply's limit is the model's."""
    profile = model_profile(77)

    assert (profile["max_input_tokens"], profile["max_output_tokens"]) == (MEASURED_TOKENS, 77)


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        (MemoryConfig(sink_tokens=8, window_tokens=100, recall_tokens=0), 108),
        (MemoryConfig(sink_tokens=8, window_tokens=100, recall_tokens=0, dense_tokens=500), 500),
    ],
)
def test_a_memory_without_recall_sees_its_window(config: MemoryConfig, tokens: int) -> None:
    """Without recall the context is the window, or what is attended to in full."""
    assert model_profile(512, config=config)["max_input_tokens"] == tokens


def test_nothing_is_said_about_weights_that_are_not_loaded() -> None:
    """What the chat template can do is told only when there is one to ask."""
    told = set(model_profile(512, language_model=language_model())) - set(model_profile(512))

    assert told == {"name", "reasoning_output", "mid_conversation_system_messages"}


@pytest.mark.parametrize(
    ("template", "reasons", "late_system"),
    [("chatml", False, True), ("qwen3", True, True), ("gemma2", False, False)],
)
def test_what_the_template_can_do(template: str, reasons: bool, late_system: bool) -> None:
    """Thinking and late system messages are read off the model's own template."""
    profile = model_profile(512, language_model=language_model(template=template))

    assert profile["reasoning_output"] is reasons
    assert profile["mid_conversation_system_messages"] is late_system


@pytest.mark.parametrize("there", [True, False])
def test_forcing_needs_the_extra(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forced choice of tools is claimed only with the extra that constrains replies."""
    found = importlib.util.find_spec("json") if there else None
    monkeypatch.setattr("langchain_agentmem.model_profile.find_spec", {"llguidance": found}.get)
    profile = model_profile(512)

    assert (profile["tool_calling"], profile["tool_choice"]) == (True, there)


def test_an_agent_asks_for_its_schema_as_a_tool() -> None:
    """An agent with tools and a response format must not force the schema on every reply."""
    agents = pytest.importorskip("langchain.agents.factory")
    model = FakeListChatModel(responses=["hi"], profile=model_profile(512))

    assert not agents._supports_provider_strategy(model, tools=[{"name": "look"}])

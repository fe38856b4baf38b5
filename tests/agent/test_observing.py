"""Observing: long texts in parts, one message to the model, repeated without reading again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentmem.agent import AgentMemory, observing
from agentmem.engine.model import LanguageModel
from agentmem.errors import InputError
from agentmem.store import DiskHome, InMemoryHome
from agentmem.store.base import Home
from support.agent_state import state_of
from support.scripted import Scripted, rendered
from support.tiny_language_model import SMALL, language_model

AT = "2026-01-02T03:04:05+00:00"
LONG = (
    " ".join(f"The fox number {n} jumps over the lazy dog, about {n * 7} km.\n" for n in range(12))
    + "naïve 🙂 end"
)


@pytest.fixture(params=["disk", "memory"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """A home on disk and one in memory."""
    return DiskHome(tmp_path) if request.param == "disk" else InMemoryHome()


@pytest.fixture
def model() -> LanguageModel:
    """The shared tiny model."""
    return language_model()


def opened(home: Home, model: LanguageModel) -> AgentMemory:
    """The agent."""
    return AgentMemory.resume("ada", model=model, home=home, config=SMALL)


def ids_of(memory: AgentMemory) -> list[int]:
    """All ids in the log."""
    return memory._store.token_ids(0, memory.tokens_held)


def test_consecutive_observations_are_one_user_message(home: Home, model: LanguageModel) -> None:
    """Three texts, a question behind them: the ids are the template's rendering of the merged text."""
    memory = opened(home, model)
    for text in ("The quick brown fox.", "My dog is called Biscuit.", "How far is it?"):
        memory.observe(text, at=AT)
    merged = "The quick brown fox.\n\nMy dog is called Biscuit.\n\nHow far is it?"
    wanted = rendered(memory.tokenizer, [{"role": "user", "content": merged}], reply=False)
    assert ids_of(memory) == wanted[: memory.tokens_held]
    assert memory.tokenizer.decode(wanted[memory.tokens_held :]) == "<|im_end|>\n"

    memory.generate(
        [{"role": "user", "content": "Well?"}], logits_processor=[Scripted(memory.tokenizer, "Hello")]
    )
    talk = [{"role": "user", "content": merged}, {"role": "user", "content": "Well?"}]
    whole = rendered(memory.tokenizer, [*talk, {"role": "assistant", "content": "Hello"}], reply=False)
    assert ids_of(memory) == whole[: memory.tokens_held]


def test_a_text_in_parts_is_the_text(
    home: Home, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However small the parts: together they are the text, and to the model one message that holds it word for word."""
    for size in (9, 30, 64):
        monkeypatch.setattr(observing, "PART_TOKENS", size)
        memory = AgentMemory.resume(f"ada-{size}", model=model, home=home, config=SMALL)
        memory.observe(LONG, source="long", at=AT)
        turns = memory.history()

        assert "".join(turn.messages[0]["content"] for turn in turns) == LONG
        assert {turn.source for turn in turns} == {"long"}
        assert all(turn.tokens <= size + 24 for turn in turns)
        assert memory.tokenizer.decode(ids_of(memory)).endswith(f"<|im_start|>user\n{LONG}")


def test_a_finished_text_is_not_read_again(home: Home, model: LanguageModel) -> None:
    """Repeated under its source: no token, no turn, also after closing. Without a source it is read again."""
    memory = opened(home, model)
    first = memory.observe(LONG, source="long", at=AT)
    state = memory.checkpoint()
    again = memory.observe(LONG, source="long", at=AT)
    memory.close()
    memory = opened(home, model)
    later = memory.observe(LONG, source="long", at=AT)

    assert first.tokens_prefilled == first.tokens_held == memory.tokens_held
    assert first.bytes_written == first.tokens_held * model.layout.bytes_per_token
    assert again.tokens_prefilled == later.tokens_prefilled == 0
    assert again.bytes_written == 0
    assert memory.checkpoint() == state
    assert (
        memory.observe("Hello", at=AT).tokens_prefilled == memory.observe("Hello", at=AT).tokens_prefilled > 0
    )


def test_another_text_under_a_source_is_refused(home: Home, model: LanguageModel) -> None:
    """Nothing changes; another source takes it."""
    memory = opened(home, model)
    memory.observe("My dog is called Biscuit.", source="notes", at=AT)
    before = state_of(memory)
    with pytest.raises(InputError, match="notes"):
        memory.observe("My cat is called Biscuit.", source="notes", at=AT)
    assert state_of(memory) == before
    memory.observe("My cat is called Biscuit.", source="notes-2", at=AT)


def test_a_text_goes_on_behind_a_chat(
    home: Home, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted, then a chat, then repeated: the rest follows in a message of its own."""
    monkeypatch.setattr(observing, "PART_TOKENS", 40)
    memory = opened(home, model)

    def stop(done: int, _: int) -> None:
        if done > 90:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        memory.observe(LONG, source="long", at=AT, on_progress=stop)
    kept = len(memory.history())
    memory.generate(
        [{"role": "user", "content": "Well?"}], logits_processor=[Scripted(memory.tokenizer, "Hello")]
    )
    memory.observe(LONG, source="long", at=AT)
    turns = [turn for turn in memory.history() if turn.kind == "observe"]

    assert "".join(turn.messages[0]["content"] for turn in turns) == LONG
    rest = "".join(turn.messages[0]["content"] for turn in turns[kept:])
    assert memory.tokenizer.decode(ids_of(memory)).endswith(f"Hello<|im_end|>\n<|im_start|>user\n{rest}")


def test_progress_counts_up_to_the_whole(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told after each chunk, never backwards, and at last that all is done."""
    monkeypatch.setattr(observing, "PART_TOKENS", 40)
    told: list[tuple[int, int]] = []
    memory = opened(InMemoryHome(), model)
    memory.observe(LONG, on_progress=lambda *figures: told.append(figures))
    total = len(memory.tokenizer(LONG, add_special_tokens=False)["input_ids"])

    assert told == sorted(told)
    assert told[-1] == (total, total)
    assert len(told) >= total // SMALL.chunk_tokens


def test_an_observation_may_be_of_the_system(home: Home, model: LanguageModel) -> None:
    """role="system" is a system message; a user's observation behind it is a message of its own."""
    memory = opened(home, model)
    memory.observe("You are kind.", role="system", at=AT)
    memory.observe("Hello there!", at=AT)
    talk = [{"role": "system", "content": "You are kind."}, {"role": "user", "content": "Hello there!"}]

    assert ids_of(memory) == rendered(memory.tokenizer, talk, reply=False)[: memory.tokens_held]


@pytest.mark.parametrize("template", ["llama3", "gemma3", "mistral-v0.1", "qwen3"])
def test_parts_and_questions_fit_other_templates(
    template: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With templates that strip, alternate or think: the text stands there whole, then the question."""
    monkeypatch.setattr(observing, "PART_TOKENS", 40)
    memory = opened(home, language_model(template=template))
    text = LONG.replace("🙂", "").replace("ï", "i")
    memory.observe(text, source="long", at=AT)
    options: dict[str, Any] = {"max_new_tokens": 1, "at": AT}
    memory.chat("How far is it?", **options)
    whole = str(memory.tokenizer.decode(ids_of(memory)))

    assert whole.count(text) == 1
    assert whole.count("How far is it?") == 1
    assert whole.index(text) < whole.index("How far is it?")

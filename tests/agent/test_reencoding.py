"""Moving to another model: the text stays, word for word, and what was forgotten stays forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentmem.agent import AgentMemory
from agentmem.engine.model import LanguageModel
from agentmem.errors import (
    AgentExistsError,
    ClosedError,
    ConfigError,
    KeyNeededError,
    StateForgottenError,
    StateNotFoundError,
    TemplateError,
)
from agentmem.memory.working_memory import WorkingMemory
from agentmem.store import DiskHome, InMemoryHome, MemoryKey
from agentmem.store.base import Home
from support.agent_state import state_of
from support.tiny_language_model import SMALL, language_model
from support.two_lives import STORY, counted

AT = "2026-01-02T03:04:05+00:00"
LATER = "2026-02-03T04:05:06+00:00"
CALL = {"type": "function", "id": "call00001", "function": {"name": "look", "arguments": {"at": "Oslo"}}}


@pytest.fixture(params=["disk", "memory"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """A home on disk and one in memory."""
    return DiskHome(tmp_path) if request.param == "disk" else InMemoryHome()


@pytest.fixture
def model() -> LanguageModel:
    """The model that the agent lives on first."""
    return language_model(template="qwen2.5")


@pytest.fixture
def other() -> LanguageModel:
    """Another model: other weights, another family, another tokenizer and template."""
    return language_model("qwen3-yarn", template="llama3.1", seed=3)


@pytest.fixture
def memory(home: Home, model: LanguageModel) -> AgentMemory:
    """An agent with all that a turn can carry."""
    memory = AgentMemory.resume("ada", model=model, home=home, config=SMALL, system="You are kind.")
    memory.chat("My dog is called Biscuit.", max_new_tokens=6, at=AT, speaker="Ann")
    memory.observe(STORY, source="story", at=LATER, trust="web")
    memory.observe("One more thing.", source="more", at=LATER, trust="web")
    memory.chat("The secret is zanzibar.", max_new_tokens=6, at=AT)
    asked = [{"role": "user", "content": "Look it up.", "metadata": {"page": 3}}]
    memory.append([*asked, {"role": "assistant", "content": "", "tool_calls": [CALL]}], at=AT)
    memory.append([{"role": "tool", "content": "12 km", "name": "look", "tool_call_id": "call00001"}], at=AT)
    memory.chat("How far is it?", max_new_tokens=6, at=AT, recall_from={"trust": ["system", "user"]})
    memory.forget(match="zanzibar")
    return memory


def told(memory: AgentMemory) -> list[Any]:
    """What a history says, without what belongs to a model."""
    return [
        (one.kind, one.messages, one.created_at, one.source, one.forgotten, one.role, one.trust)
        for one in memory.history()
    ]


def test_the_text_moves_word_for_word(memory: AgentMemory, other: LanguageModel, home: Home) -> None:
    """Roles, times, metadata, sources, trust and tool calls are kept; the old agent is as it was."""
    before = state_of(memory)
    with memory.reencode(other, agent_id="eve") as eve:
        assert told(eve) == told(memory)
        assert eve.language_model is other and eve.config == memory.config
        assert eve.verify(deep=True).ok
        assert eve.tokens_held > 0
        text = eve.tokenizer.decode(eve._store.token_ids(0, eve.tokens_held))
        for said in (
            "You are kind.",
            "Ann: My dog is called Biscuit.",
            STORY.strip(),
            "12 km",
            "How far is it?",
        ):
            assert said in text
        assert "zanzibar" not in text
        assert eve.search("Biscuit")
        assert eve.chat("And again?", max_new_tokens=6, at=AT).receipt.blocks
    assert state_of(memory) == before
    assert {info.agent_id for info in AgentMemory.list(home)} == {"ada", "eve"}


def test_it_may_take_the_old_ones_place(memory: AgentMemory, other: LanguageModel, home: Home) -> None:
    """Under the same name: the old object is closed, the next opening finds the new model's memory."""
    wanted, uuid, state = told(memory), memory._store.identity.uuid, memory.checkpoint()
    moved = memory.reencode(other)

    assert told(moved) == wanted
    with pytest.raises(ClosedError):
        memory.chat("Hello?")
    with pytest.raises(StateNotFoundError):
        moved.rewind(state)
    moved.close()
    with AgentMemory.resume("ada", model=other, home=home) as again:
        assert again._store.identity.uuid != uuid
        assert again.resumed.tokens_prefilled == 0
    assert [info.agent_id for info in AgentMemory.list(home)] == ["ada"]


def test_forgotten_turns_stay_forgotten(memory: AgentMemory, other: LanguageModel) -> None:
    """They have no tokens; their states are known to be forgotten."""
    (gone,) = [turn for turn in memory.history() if turn.forgotten]
    with memory.reencode(other, agent_id="eve") as eve:
        (there,) = [turn for turn in eve.history() if turn.forgotten]
        assert (there.tokens, there.messages) == (0, [])
        with pytest.raises(StateForgottenError):
            eve.rewind(gone.state_id)


def test_what_a_turn_was_kept_from_stays_hidden(memory: AgentMemory, other: LanguageModel) -> None:
    """A turn that could not see a source does not see it on the new model; a quarantine goes on."""
    memory.quarantine("more")
    old = {turn.source: turn for turn in memory._store.turns()}
    assert memory._store.turns()[-1].settings["hidden"][0] == [old["story"].start, old["more"].stop]
    with memory.reencode(other, agent_id="eve") as eve:
        turns = {turn.source or turn.role: turn for turn in eve._store.turns()}
        hidden = eve._store.turns()[-1].settings["hidden"]
        web = [turns["story"].start, turns["more"].stop]
        assert hidden == [web, [turns["tool"].start, turns["tool"].stop]]
        assert [one.source for one in eve.quarantined] == ["more"]


def test_a_known_text_is_not_read_again(
    home: Home, model: LanguageModel, other: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its parts are cut as the new model's tokens are, so that repeating ``observe`` does nothing."""
    monkeypatch.setattr("agentmem.agent.observing.PART_TOKENS", 40)
    memory = AgentMemory.resume("ada", model=model, home=home, config=SMALL)
    memory.observe(STORY, source="story", at=AT)
    with memory.reencode(other, agent_id="eve") as eve:
        parts = eve._store.observed_parts("story")
        assert len(parts) > 2 and [part.part for part in parts] == list(range(len(parts)))
        assert "".join(part.messages[0]["content"] for part in parts) == STORY
        assert eve.observe(STORY, source="story", at=AT).tokens_prefilled == 0
        assert memory.observe(STORY, source="story", at=AT).tokens_prefilled == 0


def test_as_if_it_had_been_told_the_same(home: Home, model: LanguageModel, other: LanguageModel) -> None:
    """An agent that was only told things is, moved, what one that lived on the new model is: K/V to the bit."""
    memories = [
        AgentMemory.resume(name, model=one, home=home, config=SMALL, system="You are kind.")
        for name, one in (("ada", model), ("bob", other))
    ]
    for memory in memories:
        memory.append([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}], at=AT)
        memory.observe(STORY, source="story", at=AT)
        memory.append([{"role": "user", "content": "naïve café 🙂"}], at=AT)
    moved = memories[0].reencode(other)

    assert state_of(moved)["kv"] == state_of(memories[1])["kv"]
    assert state_of(moved)["ids"] == state_of(memories[1])["ids"]
    replies = [one.chat("How far?", max_new_tokens=8, at=AT) for one in (moved, memories[1])]
    assert replies[0].token_ids == replies[1].token_ids


def test_it_goes_on_where_it_was_stopped(
    memory: AgentMemory,
    model: LanguageModel,
    other: LanguageModel,
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped in its middle, the old agent is whole and nothing new is listed; repeated, finished turns are not read."""
    flushed: list[int] = []
    real = WorkingMemory.flush

    def stopping(self: WorkingMemory) -> None:
        flushed.append(self.length)
        if len(flushed) == 4:
            raise KeyboardInterrupt
        real(self)

    before = state_of(memory)
    monkeypatch.setattr(WorkingMemory, "flush", stopping)
    with pytest.raises(KeyboardInterrupt):
        memory.reencode(other)
    monkeypatch.undo()
    assert state_of(memory) == before
    assert [info.agent_id for info in AgentMemory.list(home)] == ["ada"]
    memory.close()
    memory = AgentMemory.resume("ada", model=model, home=home)
    wanted, progress = told(memory), []
    with counted(other.binding.model) as lengths:
        moved = memory.reencode(other, on_progress=lambda *figures: progress.append(figures))

    assert told(moved) == wanted
    first = sum(turn.tokens for turn in moved.history()[:3])
    assert sum(lengths) == moved.tokens_held - first
    assert progress[-1] == (before["tokens"], before["tokens"])


def test_a_draft_of_what_has_changed_is_begun_anew(
    memory: AgentMemory, model: LanguageModel, other: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was forgotten since it was stopped is in no draft, and not in what comes of it."""
    with monkeypatch.context() as patch:
        patch.setattr(type(memory._home), "put_in_place", _stopped)
        with pytest.raises(KeyboardInterrupt):
            memory.reencode(other, agent_id="eve")
    assert memory._home.workshop("ada").exists("eve")
    memory.forget(source="story")
    assert not memory._home.workshop("ada").exists("eve")
    with memory.reencode(other, agent_id="eve") as eve:
        assert told(eve) == told(memory)
        assert STORY.strip() not in eve.tokenizer.decode(eve._store.token_ids(0, eve.tokens_held))


def _stopped(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_refusals_leave_everything(memory: AgentMemory, model: LanguageModel, other: LanguageModel) -> None:
    """A name that is taken, a configuration or template that does not fit; a reader may move it, too."""
    before = state_of(memory)
    with pytest.raises(AgentExistsError):
        memory.reencode(other, agent_id="ada")
    with pytest.raises(ConfigError):
        memory.reencode(other, config=SMALL.changed(window_tokens=4096))
    with pytest.raises(TemplateError):
        memory.reencode(language_model(template="chatml"), agent_id="eve")
    assert state_of(memory) == before
    memory.close()
    reader = AgentMemory.resume("ada", model=model, home=memory._home, read_only=True)
    with reader, reader.reencode(other, agent_id="eve") as eve:
        assert told(eve) == told(reader)


def test_pins_and_expiries_move(memory: AgentMemory, other: LanguageModel) -> None:
    """What retention must leave alone, and what it may drop when, is known of the new turns."""
    turn = memory.history()[1].turn
    memory._store.upkeep.pin(turn, pinned=True)
    with memory.reencode(other, agent_id="eve") as eve:
        (marks,) = eve._store.upkeep.marks().values()
        assert marks.pinned


def test_an_empty_agent_moves(home: Home, model: LanguageModel, other: LanguageModel) -> None:
    """No turns: a new identity."""
    memory = AgentMemory.resume("ada", model=model, home=home, config=SMALL)
    with memory.reencode(other) as moved:
        assert (moved.tokens_held, moved.history()) == (0, [])
        assert moved.chat("Hi", max_new_tokens=2).text is not None


def test_an_encrypted_agent_stays_encrypted(
    tmp_path: Path, model: LanguageModel, other: LanguageModel
) -> None:
    """Its words are in no file of the home in the clear, neither before nor after; the same key opens it."""
    pytest.importorskip("cryptography")
    key = MemoryKey.generate()
    memory = AgentMemory.resume("ada", model=model, home=tmp_path, config=SMALL, key=key)
    memory.append([{"role": "user", "content": "The secret is zanzibar."}], at=AT)
    wanted = told(memory)
    moved = memory.reencode(other)
    assert told(moved) == wanted
    moved.close()
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and b"zanzibar" in file.read_bytes()]
    with pytest.raises(KeyNeededError):
        AgentMemory.resume("ada", model=other, home=tmp_path)
    with AgentMemory.resume("ada", model=other, home=tmp_path, key=key) as again:
        assert told(again) == wanted

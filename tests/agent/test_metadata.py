"""Metadata of messages, and what earlier turns put in force: a system prompt, tools."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from agentmem.agent import AgentMemory
from agentmem.agent.places import moment
from agentmem.agent.turns import Asked
from agentmem.engine.model import LanguageModel
from agentmem.errors import InputError, TemplateError
from agentmem.store import DiskHome, InMemoryHome
from agentmem.store.base import Home
from support.agent_state import state_of
from support.scripted import Scripted
from support.tiny_language_model import SMALL, language_model

AT = "2026-01-02T03:04:05+00:00"
METADATA = {"id": "m-1", "thread": None, "nested": {"numbers": [1, 2.5], "zanzibar": True}}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather.", "parameters": {}},
}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "The time.", "parameters": {}}}


@pytest.fixture(params=["disk", "memory"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """A home on disk and one in memory."""
    return DiskHome(tmp_path) if request.param == "disk" else InMemoryHome()


@pytest.fixture
def model() -> LanguageModel:
    """The shared tiny model."""
    return language_model()


def user(content: str, **fields: Any) -> dict[str, Any]:
    """A message."""
    return {"role": "user", "content": content, **fields}


def text_of(memory: AgentMemory) -> str:
    """What the log says."""
    return str(memory.tokenizer.decode(memory._store.token_ids(0, memory.tokens_held)))


class TestMetadata:
    """Kept with the message, and shown to people alone."""

    def test_it_is_kept_and_never_read(self, home: Home, model: LanguageModel, tmp_path: Path) -> None:
        """Tokens, K/V and state ids are those of a twin without; history, reopening and exports show it."""
        with_it = AgentMemory.resume("ada", model=model, home=home, config=SMALL)
        reply = with_it.generate([user("Hello", metadata=METADATA)], max_new_tokens=4, at=AT)
        without = with_it.generate([user("Hello")], max_new_tokens=4, at=AT, after=None)
        assert reply.state_id == without.state_id
        with_it.append([user("Hello", metadata=METADATA)], at=AT, after=None)
        with_it.close()
        again = AgentMemory.resume("ada", model=model, home=home)
        assert [dict(m).get("metadata") for m in again.history()[-1].messages] == [METADATA]
        AgentMemory.export("ada", tmp_path / "ada.agentmem", home=home)
        for kv in (False, True):
            AgentMemory.export("ada", tmp_path / "ada.agentmem", home=home, kv=kv)
            name = f"restored-{kv}"
            restored = AgentMemory.restore(
                tmp_path / "ada.agentmem", agent_id=name, model=model, home=InMemoryHome()
            )
            assert restored.history()[-1].messages[0]["metadata"] == METADATA

    def test_search_and_forget_look_past_it(self, home: Home, model: LanguageModel) -> None:
        """A word that stands in the metadata alone finds nothing; what is forgotten takes its metadata along."""
        memory = AgentMemory.resume("ada", model=model, home=home, config=SMALL)
        memory.append([user("Hello there, how are you today? The fox is fine.")], at=AT)
        memory.append([user("The secret.", metadata=METADATA)], at=AT)
        assert memory.search("zanzibar") == []
        assert memory.forget(match="zanzibar").turns == []
        assert memory.forget(match="secret").turns == [2]
        assert memory.history()[-1].messages == []

    def test_the_callers_dict_is_not_kept(self, model: LanguageModel) -> None:
        """What is stored is a copy, as JSON has it."""
        memory = AgentMemory.resume("ada", model=model, home=InMemoryHome(), config=SMALL)
        mine: dict[str, Any] = {"pair": (1, 2)}
        stream = memory.generate_stream([user("Hello", metadata=mine)], max_new_tokens=4)
        mine["late"] = True
        stream.read()
        assert memory.history()[-1].messages[0]["metadata"] == {"pair": [1, 2]}
        assert "metadata" not in memory.history()[-1].messages[1]

    @pytest.mark.parametrize("wrong", ["text", 5, None, [1], {"a": object()}, {"a": {1, 2}}, {"a": math.nan}])
    def test_anything_but_plain_json_is_refused(self, model: LanguageModel, wrong: object) -> None:
        """A typed error that names the message; nothing has changed."""
        memory = AgentMemory.resume("ada", model=model, home=InMemoryHome(), config=SMALL)
        with pytest.raises(InputError, match="message 0"):
            memory.generate([user("Hello", metadata=wrong)])
        assert memory.history() == []


class TestTools:
    """Tools are written once, and again when they change or were forgotten."""

    @pytest.fixture
    def memory(self, home: Home) -> AgentMemory:
        """An agent whose template has a place for tools."""
        model = language_model(template="qwen2.5")
        return AgentMemory.resume("ada", model=model, home=home, config=SMALL)

    def ask(self, memory: AgentMemory, *tools: dict[str, Any], **options: Any) -> int:
        """A turn; returns the tokens it read."""
        asked = [user("Hello there")]
        said = Scripted(memory.tokenizer, "Hello")
        reply = memory.generate(asked, tools=tools, logits_processor=[said], at=AT, **options)
        return reply.receipt.tokens_prefilled

    def test_written_once(self, memory: AgentMemory, home: Home) -> None:
        """Equal tools, in any order and with their fields in any order, cost nothing more; in a new process too."""
        plain = self.ask(memory)
        first = self.ask(memory, WEATHER, CLOCK, after=None)
        bare = self.ask(memory)
        assert first > plain + 20
        turned = dict(reversed(WEATHER.items()))
        assert self.ask(memory, CLOCK, turned) == bare
        memory.close()
        memory = AgentMemory.resume("ada", model=language_model(template="qwen2.5"), home=home)
        assert self.ask(memory, WEATHER, CLOCK) == bare
        assert text_of(memory).count("The weather.") == 1

    def test_other_tools_are_written(self, memory: AgentMemory) -> None:
        """One tool more, or other ones: all that are given are written; going back to the first writes them again."""
        self.ask(memory, WEATHER)
        bare = self.ask(memory)
        assert self.ask(memory, WEATHER, CLOCK) > bare
        assert self.ask(memory, WEATHER) > bare
        assert self.ask(memory, WEATHER) == bare
        assert text_of(memory).count("The weather.") == 3

    def test_not_without_the_turn_that_wrote_them(self, memory: AgentMemory) -> None:
        """Tools of a turn that was dropped, left behind by a fork, or forgotten are written again."""
        self.ask(memory)
        start = memory.checkpoint()
        bare = self.ask(memory, after=start)
        first = self.ask(memory, WEATHER, after=start, remember=False)
        assert self.ask(memory, WEATHER, after=start) == first > bare
        assert self.ask(memory, WEATHER, after=start) == first
        turn = memory.history()[-1].turn
        self.ask(memory)
        memory.forget(turn=turn)
        assert self.ask(memory, WEATHER) > bare
        assert self.ask(memory, WEATHER) <= bare

    def test_bad_tools(self, memory: AgentMemory) -> None:
        """What is no list of plain JSON schemas is refused, and a template without a place for tools says so."""
        for wrong in ("weather", WEATHER, ["weather"], [{"a": object()}]):
            with pytest.raises(InputError, match="tool"):
                memory.generate([user("Hello")], tools=wrong)  # type: ignore[arg-type]
        assert memory.history() == []
        plain = AgentMemory.resume("eve", model=language_model(), home=InMemoryHome(), config=SMALL)
        with pytest.raises(TemplateError):
            plain.generate([user("Hello")], tools=[WEATHER])
        assert plain.history() == []


class TestSystemPrompt:
    """The last system message of a conversation is the prompt in force."""

    def resumed(self, home: Home, model: LanguageModel, system: str) -> int:
        """Open with a system prompt; returns the tokens it cost."""
        with AgentMemory.resume("ada", model=model, home=home, config=SMALL, system=system) as memory:
            return memory.resumed.tokens_prefilled

    @pytest.mark.parametrize("verb", ["generate", "append"])
    def test_messages_set_it(self, home: Home, model: LanguageModel, verb: str) -> None:
        """A system message of a turn counts as the prompt: opened with the same words nothing is read."""
        memory = AgentMemory.resume("ada", model=model, home=home, config=SMALL, system="You are kind.")
        said = [{"role": "system", "content": "You are brief."}, user("Hello")]
        memory.generate(said, max_new_tokens=3) if verb == "generate" else memory.append(said)
        memory.close()
        assert self.resumed(home, model, "You are brief.") == 0
        assert self.resumed(home, model, "You are kind.") > 0
        assert self.resumed(home, model, "You are kind.") == 0

    def test_observed_and_made_texts_do_not(self, home: Home, model: LanguageModel) -> None:
        """A text observed as system, and an instruction that says it was made, leave the prompt in force."""
        memory = AgentMemory.resume("ada", model=model, home=home, config=SMALL, system="You are kind.")
        memory.observe("You are brief.", role="system", at=AT)
        made = {"role": "system", "content": "Answer as JSON.", "metadata": {"made": "schema"}}
        memory.generate([made, user("Hello")], max_new_tokens=3)
        memory.close()
        assert self.resumed(home, model, "You are kind.") == 0
        assert self.resumed(home, model, "You are brief.") > 0

    def test_a_forgotten_prompt_is_given_again(self, home: Home, model: LanguageModel) -> None:
        """Forgotten, it is not in force any more: opening with it reads it once more."""
        memory = AgentMemory.resume("ada", model=model, home=home, config=SMALL)
        memory.observe("The quick brown fox jumps over the lazy dog.", at=AT)
        memory.append([{"role": "system", "content": "You are brief."}], at=AT)
        memory.append([user("Hello there")], at=AT)
        memory.forget(match="brief")
        memory.close()
        assert self.resumed(home, model, "You are brief.") > 0
        assert self.resumed(home, model, "You are brief.") == 0


@pytest.mark.parametrize("kv", [False, True])
def test_restored_without_what_was_forgotten(tmp_path: Path, kv: bool) -> None:
    """A restored memory knows which tools and prompt are in it, although tokens may have moved; and which are not."""
    model = language_model(template="qwen2.5")
    home = InMemoryHome()
    memory = AgentMemory.resume("ada", model=model, home=home, config=SMALL)
    memory.observe("The quick brown fox jumps over the lazy dog.", at=AT)
    memory.append([{"role": "system", "content": "You are brief."}], at=AT)
    memory.observe("The secret is zanzibar, and nobody knows. The dog is brown.", at=AT)
    memory.generate([user("Hello")], tools=[WEATHER], max_new_tokens=3, at=AT)
    memory.append([user("Hello again")], at=AT)
    memory.forget(match="brief")
    memory.forget(match="zanzibar")
    AgentMemory.export("ada", tmp_path / "ada.agentmem", home=home, kv=kv)
    restored = AgentMemory.restore(tmp_path / "ada.agentmem", agent_id="eve", model=model, home=home)
    assert restored._turns().in_force.system is None
    for one in (restored, memory):
        asked = Asked("chat", [user("Hello")], moment(AT), [WEATHER])
        assert "weather" not in str(one.tokenizer.decode(one._turns().delta(asked, reply=True).ids))
    turn = next(turn.turn for turn in restored.history() if turn.kind == "chat")
    restored.forget(turn=turn)
    asked = Asked("chat", [user("Hello")], moment(AT), [WEATHER])
    assert "weather" in str(restored.tokenizer.decode(restored._turns().delta(asked, reply=True).ids))


def test_settings_of_older_turns(model: LanguageModel) -> None:
    """A memory whose turns note a system prompt but not where it was written is read as before."""
    home = InMemoryHome()
    memory = AgentMemory.resume("ada", model=model, home=home, config=SMALL, system="You are kind.")
    before = state_of(memory)
    kept = home._agents["ada"].kept[1].turn
    for name in ("system_at", "tools", "tools_at"):
        del kept.settings[name]  # type: ignore[attr-defined]
    memory.close()
    memory = AgentMemory.resume("ada", model=model, home=home, system="You are kind.")
    assert state_of(memory) == before

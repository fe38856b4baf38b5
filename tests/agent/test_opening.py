"""Opening: made or found, the right model, the stored options, the system prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentmem.agent import AgentMemory
from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.errors import (
    AgentBusyError,
    AgentExistsError,
    AgentNotFoundError,
    ConfigError,
    FingerprintMismatchError,
    InputError,
)
from agentmem.store import DiskHome, InMemoryHome
from agentmem.store.base import Home
from support.agent_state import state_of
from support.scripted import rendered
from support.templates import tokenizer_for
from support.tiny_folder import write_chat_model
from support.tiny_language_model import SMALL, language_model, plain_model
from support.two_lives import counted

MIB = 1 << 20


@pytest.fixture(params=["disk", "memory"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """A home on disk and one in memory."""
    return DiskHome(tmp_path) if request.param == "disk" else InMemoryHome()


@pytest.fixture
def model() -> LanguageModel:
    """The shared tiny model."""
    return language_model()


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the lock and SQLite's own side files."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock" and not path.name.endswith(("-wal", "-shm"))
    }


def test_an_agent_is_made_then_found(home: Home, model: LanguageModel) -> None:
    """The receipt says which; turns and tokens are there again, and none was read again."""
    with AgentMemory.resume("ada", model=model, home=home, config=SMALL) as memory:
        assert memory.resumed.created
        assert (memory.resumed.turns, memory.resumed.tokens_held) == (0, 0)
        assert memory.checkpoint() is None
        memory.chat("Hello", max_new_tokens=4)
        state, held = memory.checkpoint(), memory.tokens_held
    with counted(model.binding.model) as lengths:
        memory = AgentMemory.resume("ada", model=model, home=home)
    assert lengths == []
    assert not memory.resumed.created
    assert (memory.resumed.turns, memory.resumed.tokens_held) == (1, held)
    assert memory.resumed.tokens_prefilled == 0
    assert memory.checkpoint() == state
    assert [info.agent_id for info in AgentMemory.list(home)] == ["ada"]


def test_what_is_not_there_is_said(home: Home, model: LanguageModel) -> None:
    """create=False and read_only=True make nothing; deleting needs something to delete."""
    for options in ({"create": False}, {"read_only": True}):
        with pytest.raises(AgentNotFoundError):
            AgentMemory.resume("ada", model=model, home=home, **options)
    with pytest.raises(AgentNotFoundError):
        AgentMemory.delete("ada", home)
    assert AgentMemory.list(home) == []


def test_a_second_writer_is_refused_until_the_first_lets_go(home: Home, model: LanguageModel) -> None:
    """AgentBusyError; deleting is refused too."""
    with AgentMemory.resume("ada", model=model, home=home, config=SMALL):
        with pytest.raises(AgentBusyError):
            AgentMemory.resume("ada", model=model, home=home)
        with pytest.raises(AgentBusyError):
            AgentMemory.delete("ada", home)
    AgentMemory.resume("ada", model=model, home=home).close()
    AgentMemory.delete("ada", home)
    assert AgentMemory.list(home) == []


def test_another_model_is_refused_with_the_differing_fields(tmp_path: Path, model: LanguageModel) -> None:
    """Other weights, another template or another dtype: named, and no file has changed."""
    with AgentMemory.resume("ada", model=model, home=tmp_path, config=SMALL) as memory:
        memory.chat("Hello", max_new_tokens=4)
    before = files_of(tmp_path)
    others = {
        "weights": language_model(seed=1),
        "chat_template": LanguageModel.wrap(plain_model(), tokenizer_for("qwen2.5")),
        "kv_dtype": language_model(dtype="bfloat16"),
        "architecture": language_model("qwen3"),
    }
    for field, other in others.items():
        with pytest.raises(FingerprintMismatchError, match=field) as caught:
            AgentMemory.resume("ada", model=other, home=tmp_path, config=SMALL.changed(window_tokens=16))
        assert field in caught.value.differing
    assert files_of(tmp_path) == before
    AgentMemory.resume("ada", model=model, home=tmp_path).close()


def test_options_are_kept_and_may_be_changed(home: Home, model: LanguageModel) -> None:
    """None is as stored; given ones are stored; a turn may run with another window or recall."""
    AgentMemory.resume("ada", model=model, home=home, config=SMALL).close()
    with AgentMemory.resume("ada", model=model, home=home) as memory:
        assert memory.config == SMALL
        memory.chat("The quick brown fox jumps over the lazy dog. " * 4, max_new_tokens=4)
    wider = SMALL.changed(window_tokens=40, recall_tokens=16, block_tokens=4, sink_tokens=4)
    with AgentMemory.resume("ada", model=model, home=home, config=wider) as memory:
        memory.chat("Hello", max_new_tokens=4)
    with AgentMemory.resume("ada", model=model, home=home) as memory:
        assert memory.config == wider
        assert memory._store.head is not None
        assert memory._store.head.settings["window_tokens"] == 40


def test_a_chunk_size_other_than_at_birth_is_refused(home: Home, model: LanguageModel) -> None:
    """ConfigError; the stored options stay, and the agent is free."""
    AgentMemory.resume("ada", model=model, home=home, config=SMALL).close()
    with pytest.raises(ConfigError, match="chunk_tokens"):
        AgentMemory.resume("ada", model=model, home=home, config=SMALL.changed(chunk_tokens=32))
    with AgentMemory.resume("ada", model=model, home=home) as memory:
        assert memory.config == SMALL


def test_a_working_set_longer_than_the_model_was_trained_for_is_refused(home: Home) -> None:
    """ConfigError before anything is made, at birth and later."""
    model = language_model()
    for options in ({"dense_tokens": 1025}, {"window_tokens": 1000}, {"recall_tokens": 1024}):
        with pytest.raises(ConfigError, match="1024"):
            AgentMemory.resume("ada", model=model, home=home, config=SMALL.changed(**options))
    assert AgentMemory.list(home) == []
    AgentMemory.resume("ada", model=model, home=home, config=SMALL).close()
    with pytest.raises(ConfigError, match="1024"):
        AgentMemory.resume("ada", model=model, home=home, config=SMALL.changed(dense_tokens=1025))
    with AgentMemory.resume("ada", model=model, home=home) as memory:
        assert memory.config == SMALL


def test_the_longest_working_set_that_is_allowed_works() -> None:
    """Dense up to exactly the trained length, then a full window, recall, chunk and steps."""
    model = LanguageModel.wrap(plain_model(trained=128), tokenizer_for("chatml"))
    config = SMALL.changed(dense_tokens=128)
    with pytest.raises(ConfigError):
        model.check(config.changed(dense_tokens=129))
    memory = AgentMemory.resume("ada", model=model, home=InMemoryHome(), config=config)
    for _ in range(8):
        reply = memory.chat("The quick brown fox jumps over the lazy dog.", max_new_tokens=30)
    assert reply.receipt.blocks


def test_a_system_prompt_is_read_once(home: Home, model: LanguageModel) -> None:
    """Set at birth, then the same again: nothing is read. Another: appended as a turn, at the head."""
    with AgentMemory.resume("ada", model=model, home=home, config=SMALL, system="You are kind.") as memory:
        assert memory.resumed.tokens_prefilled == memory.tokens_held > 0
        reply = memory.chat("Hello", max_new_tokens=1)
        start = rendered(
            memory.tokenizer,
            [{"role": "system", "content": "You are kind."}, {"role": "user", "content": "Hello"}],
            reply=True,
        )
        assert memory._store.token_ids(0, memory.tokens_held) == [*start, *reply.token_ids]
        state, held = reply.state_id, memory.tokens_held
    for system in ("You are kind.", None):
        with AgentMemory.resume("ada", model=model, home=home, system=system) as memory:
            assert memory.resumed.tokens_prefilled == 0
            assert memory.checkpoint() == state
    with AgentMemory.resume("ada", model=model, home=home, system="You are stern.") as memory:
        assert memory.resumed.tokens_prefilled == memory.tokens_held - held > 0
        assert [turn.kind for turn in memory.history()] == ["system", "chat", "system"]
        memory.rewind(state)
    with AgentMemory.resume("ada", model=model, home=home, system="You are stern.") as memory:
        assert memory.resumed.tokens_prefilled > 0, "before the rewind it was read on another branch"
    with AgentMemory.resume("ada", model=model, home=home, system="You are stern.") as memory:
        assert memory.resumed.tokens_prefilled == 0


def test_a_system_prompt_that_cannot_be_used_makes_no_agent(home: Home, model: LanguageModel) -> None:
    """Empty, or the model fails while reading it: there is no agent afterwards."""
    with pytest.raises(InputError):
        AgentMemory.resume("ada", model=model, home=home, config=SMALL, system=" ")

    def boom(*_: object) -> None:
        raise ZeroDivisionError

    hook = model.binding.model.model.layers[1].register_forward_hook(boom)
    try:
        with pytest.raises(ZeroDivisionError):
            AgentMemory.resume("ada", model=model, home=home, config=SMALL, system="You are kind.")
    finally:
        hook.remove()
    assert AgentMemory.list(home) == []


def test_an_opened_agent_is_as_it_was_left(home: Home, model: LanguageModel) -> None:
    """Everything that can be seen is the same, before and after closing."""
    with AgentMemory.resume("ada", model=model, home=home, config=SMALL) as memory:
        memory.observe("The quick brown fox jumps over the lazy dog. " * 4, source="fox")
        memory.chat("How far is it?", max_new_tokens=8)
        before, explained = state_of(memory), memory.explain()
    with AgentMemory.resume("ada", model=model, home=home) as memory:
        assert state_of(memory) == before
        assert memory.explain() == explained
        assert explained.blocks


def test_weights_are_loaded_once_for_all_agents_and_openings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name, by folder, as stored or with its dtype spelled out: one object, found from any folder."""
    folder = write_chat_model(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    with AgentMemory.resume("ada", model="model", home=home, config=SMALL) as memory:
        first = memory._model.get()
        memory.chat("Hello", max_new_tokens=2)
    monkeypatch.chdir(tmp_path.parent)
    with (
        AgentMemory.resume("ada", home=home) as memory,
        AgentMemory.resume("bob", model=folder, home=home) as bob,
    ):
        assert memory._model.get() is first
        assert bob._model.get() is first
        assert LanguageModel.load(folder, device="cpu", dtype="float32") is first
        assert memory.chat("Hello", max_new_tokens=2).text is not None
    LanguageModel.unload()
    assert LanguageModel.load(folder) is not first


def test_one_model_wrapped_twice_is_the_same_model(model: LanguageModel) -> None:
    """Wrapping a bound model again reuses its binding, and the fingerprint does not change."""
    again = LanguageModel.wrap(model.binding.model, model.tokenizer)

    assert again.binding is model.binding
    assert again.fingerprint == model.fingerprint


def test_the_stored_options_must_be_known_ones(home: Home, model: LanguageModel) -> None:
    """Options that a newer version stored are refused by name, and the agent is free again."""
    with AgentMemory.resume("ada", model=model, home=home, config=SMALL) as memory:
        memory._store.note("config", {**SMALL.model_dump(), "future": 1})
    for _ in range(2):
        with pytest.raises(ConfigError, match="future"):
            AgentMemory.resume("ada", model=model, home=home)


def test_restoring_over_an_agent_is_refused(home: Home, model: LanguageModel, tmp_path: Path) -> None:
    """Names are taken; so is a fork's."""
    with AgentMemory.resume("ada", model=model, home=home, config=SMALL) as memory:
        memory.chat("Hello", max_new_tokens=2)
        memory.fork("bob").close()
        with pytest.raises(AgentExistsError):
            memory.fork("bob")
        path = AgentMemory.export("ada", tmp_path / "ada.agentmem", home=home)
        with pytest.raises(AgentExistsError):
            AgentMemory.restore(path, model=model, home=home)


def test_the_default_options_fit_a_usual_model() -> None:
    """The workspace for the defaults is allowed from 4,096 trained tokens on."""
    model = LanguageModel.wrap(plain_model(trained=4096), tokenizer_for("chatml"))
    model.check(MemoryConfig())


class Raced(InMemoryHome):
    """Somebody else makes each agent in the moment before we do."""

    def create(self, agent_id: str, **options: Any) -> Any:
        super().create(agent_id, **options).close()
        return super().create(agent_id, **options)


def test_an_agent_that_somebody_else_just_made_is_opened() -> None:
    """Two processes that resume a new agent at once both get it, one after the other."""
    with AgentMemory.resume("ada", model=language_model(), home=Raced(), config=SMALL) as memory:
        assert not memory.resumed.created
        assert memory.chat("Hi", max_new_tokens=2).state_id is not None


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """InputError for every verb, rather than a home without agents."""
    (tmp_path / "home").touch()

    with pytest.raises(InputError, match="no folder"):
        AgentMemory.list(tmp_path / "home")
    with pytest.raises(InputError, match="no folder"):
        AgentMemory.resume("ada", home=tmp_path / "home")


def test_a_home_is_a_path_or_a_home(model: LanguageModel) -> None:
    """Anything else is refused by type, and so is a path that no system has."""
    for home in (5, ["home"], b"home"):
        with pytest.raises(InputError, match="home must be"):
            AgentMemory.resume("ada", model=model, home=home)
    with pytest.raises(InputError, match="null"):
        AgentMemory.list("ho\0me")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"config": {"sink_tokens": 4}}, ConfigError),
        ({"wait": -1}, InputError),
        ({"wait": "5"}, InputError),
        ({"wait": float("nan")}, InputError),
    ],
)
def test_options_of_the_wrong_type_make_no_agent(
    home: Home, model: LanguageModel, options: dict[str, Any], error: type[Exception]
) -> None:
    """They are refused before anything is made."""
    with pytest.raises(error, match=next(iter(options))):
        AgentMemory.resume("ada", model=model, home=home, **options)
    assert AgentMemory.list(home) == []

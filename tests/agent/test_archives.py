"""Exports: with keys and values the same agent to the bit, without them its text read again; never half an agent."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentmem.agent import AgentMemory
from agentmem.engine.model import LanguageModel
from agentmem.errors import AgentNotFoundError, ArchiveError, FingerprintMismatchError
from agentmem.store import DiskHome, InMemoryHome
from agentmem.store.base import Home
from support.agent_state import state_of
from support.session_agent import log_tensors
from support.tiny_language_model import SMALL, language_model
from support.two_lives import counted

AT = "2026-01-02T03:04:05+00:00"
STORY = "The quick brown fox jumps over the lazy dog. How far is it? About 12 km, and back again. " * 2


@pytest.fixture
def model() -> LanguageModel:
    """The shared tiny model."""
    return language_model()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home on disk."""
    return DiskHome(tmp_path / "home")


@pytest.fixture
def memory(home: Home, model: LanguageModel) -> AgentMemory:
    """An agent with a system prompt, a text, a forgotten turn and answers."""
    memory = AgentMemory.resume("ada", model=model, home=home, config=SMALL, system="You are kind.")
    memory.observe(STORY, source="story", at=AT)
    memory.chat("The secret is zanzibar.", max_new_tokens=6, at=AT)
    memory.chat("How far is it?", max_new_tokens=6, at=AT)
    memory.forget(match="zanzibar")
    memory.chat("What is my dog called?", max_new_tokens=12, at=AT)
    return memory


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_with_keys_and_values_it_is_the_same_agent(
    memory: AgentMemory, home: Home, model: LanguageModel, tmp_path: Path, place: str
) -> None:
    """State, K/V, forgotten ranges, explanation: as they were; nothing is forwarded; the next turn is the same."""
    path = AgentMemory.export("ada", tmp_path / "ada.agentmem", kv=True, home=home)
    other: Home = DiskHome(tmp_path / "other") if place == "disk" else InMemoryHome()
    with counted(model.binding.model) as lengths:
        copy = AgentMemory.restore(path, model=model, home=other)
    assert lengths == []
    assert copy.config == memory.config
    wanted, found = state_of(memory), state_of(copy)
    for key in ("checkpoint", "tokens", "ids", "pending", "kv", "log"):
        assert found[key] == wanted[key]
    assert [turn.messages for turn in copy.history()] == [turn.messages for turn in memory.history()]
    assert copy.explain().blocks == memory.explain().blocks
    replies = [one.chat("And again?", max_new_tokens=12, at=AT) for one in (memory, copy)]
    assert replies[0].token_ids == replies[1].token_ids
    assert state_of(memory)["kv"] == state_of(copy)["kv"]
    assert AgentMemory.resume("bob", model=model, home=other, config=SMALL).resumed.created


def test_as_text_it_is_read_again(
    memory: AgentMemory, home: Home, model: LanguageModel, tmp_path: Path
) -> None:
    """The living turns' tokens in order, forwarded once; history and sources are there; it can go on."""
    path = AgentMemory.export("ada", tmp_path / "ada.agentmem", home=home)
    told: list[tuple[int, int]] = []
    with counted(model.binding.model) as lengths:
        copy = AgentMemory.restore(
            path, agent_id="eve", model=model, home=home, on_progress=lambda *figures: told.append(figures)
        )
    living = [turn for turn in memory.history() if not turn.forgotten]
    ids = [token for token in memory._store.token_ids(0, memory.tokens_held) if token >= 0]

    assert sum(lengths) == copy.tokens_held == len(ids)
    assert copy._store.token_ids(0, copy.tokens_held) == ids
    assert [turn.messages for turn in copy.history()] == [turn.messages for turn in living]
    assert told[-1] == (len(ids), len(ids))
    assert copy.observe(STORY, source="story").tokens_prefilled == 0
    assert copy.chat("And again?", max_new_tokens=6, at=AT).receipt.blocks
    assert path.stat().st_size < 20_000


def test_as_text_its_dense_keys_and_values_are_those_of_decoding(
    model: LanguageModel, tmp_path: Path
) -> None:
    """Where everything is attended to, reading the tokens again gives K/V equal to 1e-4."""
    home = InMemoryHome()
    memory = AgentMemory.resume("ada", model=model, home=home, config=SMALL.changed(dense_tokens=600))
    memory.chat("What is my dog called?", max_new_tokens=20)
    memory.chat("And again?", max_new_tokens=20)
    copy = AgentMemory.restore(
        AgentMemory.export("ada", tmp_path / "ada.agentmem", home=home),
        agent_id="eve",
        model=model,
        home=home,
    )
    pairs = zip(log_tensors(memory._store), log_tensors(copy._store), strict=True)
    assert max(float((a - b).abs().max()) for a, b in pairs) <= 1e-4


def test_an_empty_agent_travels_too(home: Home, model: LanguageModel, tmp_path: Path) -> None:
    """No turns, both ways."""
    AgentMemory.resume("ada", model=model, home=home, config=SMALL).close()
    for kv in (True, False):
        path = AgentMemory.export("ada", tmp_path / "ada.agentmem", kv=kv, home=home)
        with AgentMemory.restore(path, agent_id=f"copy-{kv}", model=model, home=home) as copy:
            assert (copy.tokens_held, copy.config) == (0, SMALL)


def test_keys_and_values_are_refused_for_another_model(
    memory: AgentMemory, home: Home, tmp_path: Path
) -> None:
    """FingerprintMismatchError with the fields. As text: another model of the same tokenizer may read it."""
    other = language_model(seed=1)
    path = AgentMemory.export("ada", tmp_path / "kv.agentmem", kv=True, home=home)
    with pytest.raises(FingerprintMismatchError, match="weights"):
        AgentMemory.restore(path, agent_id="eve", model=other, home=home)
    text = AgentMemory.export("ada", tmp_path / "text.agentmem", home=home)
    with pytest.raises(FingerprintMismatchError, match="chat_template"):
        AgentMemory.restore(text, agent_id="eve", model=language_model(template="qwen2.5"), home=home)
    assert [info.agent_id for info in AgentMemory.list(home)] == ["ada"]
    with AgentMemory.restore(text, agent_id="eve", model=other, home=home) as eve:
        assert eve.chat("How far?", max_new_tokens=4).text is not None


def test_an_unknown_agent_leaves_no_file(home: Home, tmp_path: Path) -> None:
    """AgentNotFoundError; an unwritable path is an ArchiveError; an existing export is replaced whole or not at all."""
    path = tmp_path / "ada.agentmem"
    path.write_bytes(b"precious")
    with pytest.raises(AgentNotFoundError):
        AgentMemory.export("nobody", path, home=home)
    assert path.read_bytes() == b"precious"
    AgentMemory.resume("ada", model=language_model(), home=home, config=SMALL).close()
    with pytest.raises(ArchiveError):
        AgentMemory.export("ada", tmp_path / "missing" / "ada.agentmem", home=home)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ada.agentmem", "home"]


def test_a_missing_file_is_an_archive_error(home: Home, tmp_path: Path) -> None:
    """Also a folder, and a file that is no zip."""
    (tmp_path / "text.agentmem").write_text("hello")
    for name in ("nothing.agentmem", "home", "text.agentmem"):
        (tmp_path / "home").mkdir(exist_ok=True)
        with pytest.raises(ArchiveError):
            AgentMemory.restore(tmp_path / name, model=language_model(), home=home)


def _manifest(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, bytes]], None]:
    def damage(members: dict[str, bytes]) -> None:
        value = json.loads(members["manifest.json"])
        change(value)
        members["manifest.json"] = json.dumps(value).encode()

    return damage


def _row(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, bytes]], None]:
    def damage(members: dict[str, bytes]) -> None:
        first, *rest = members["turns.jsonl"].splitlines()
        value = json.loads(first)
        change(value)
        members["turns.jsonl"] = b"\n".join([json.dumps(value).encode(), *rest]) + b"\n"

    return damage


def _member(name: str, change: Callable[[bytes], bytes]) -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.update({name: change(members[name])})


PIECE = "kv/000000000000.safetensors"
DAMAGES: dict[str, Callable[[dict[str, bytes]], Any]] = {
    "no manifest": lambda m: m.pop("manifest.json"),
    "no turns": lambda m: m.pop("turns.jsonl"),
    "no keys": lambda m: m.pop(PIECE),
    "manifest is a list": _member("manifest.json", lambda _: b"[]"),
    "manifest is no text": _member("manifest.json", lambda _: b"\xff\xfe\x00"),
    "turns cut": _member("turns.jsonl", lambda data: data[: len(data) // 2]),
    "a turn lost": _member("turns.jsonl", lambda data: b"".join(data.splitlines(keepends=True)[1:])),
    "keys cut": _member(PIECE, lambda data: data[:-8]),
    "keys of another kind": _member(PIECE, lambda data: data.replace(b"F32", b"I32")),
    "a newer format": _manifest(lambda v: v.update(format=99)),
    "unknown options": _manifest(lambda v: v["config"].update(future=1)),
    "options missing": _manifest(lambda v: v.update(config=None)),
    "tokens miscounted": _manifest(lambda v: v.update(tokens=v["tokens"] + 1)),
    "no layout": _manifest(lambda v: v.update(layout={})),
    "ids are words": _row(lambda v: v.update(token_ids=["a"] * len(v["token_ids"]))),
    "messages are words": _row(lambda v: v.update(messages=["a"])),
    "nothing pending": _row(lambda v: v.update(pending=None)),
    "a turn is a number": _member("turns.jsonl", lambda data: b"5\n" + data.split(b"\n", 1)[1]),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_export_is_refused_and_nothing_is_left(
    name: str, memory: AgentMemory, home: Home, model: LanguageModel, tmp_path: Path
) -> None:
    """ArchiveError, whatever is wrong with it; no agent, no file stays behind."""
    path = AgentMemory.export("ada", tmp_path / "ada.agentmem", kv=True, home=home)
    with zipfile.ZipFile(path) as archive:
        members = {item: archive.read(item) for item in archive.namelist()}
    DAMAGES[name](members)
    with zipfile.ZipFile(path, "w") as archive:
        for item, data in members.items():
            archive.writestr(item, data)
    before = sorted(p.name for p in (tmp_path / "home" / "agents").iterdir())

    with pytest.raises(ArchiveError):
        AgentMemory.restore(path, agent_id="eve", model=model, home=home)
    assert sorted(p.name for p in (tmp_path / "home" / "agents").iterdir()) == before
    assert [info.agent_id for info in AgentMemory.list(home)] == ["ada"]


@pytest.mark.parametrize("kv", [True, False])
def test_flipped_and_missing_bytes_never_pass_unnoticed(
    kv: bool, memory: AgentMemory, home: Home, model: LanguageModel, tmp_path: Path
) -> None:
    """At places all over the file: refused, or, where a byte has no meaning, the same agent as without."""
    path = AgentMemory.export("ada", tmp_path / "ada.agentmem", kv=kv, home=home)
    data = path.read_bytes()
    with AgentMemory.restore(path, agent_id="whole", model=model, home=home) as whole:
        wanted = [turn.messages for turn in whole.history()], state_of(whole)["kv"]
    refused = 0
    for number, place in enumerate(range(10, len(data), len(data) // 12)):
        flipped = bytearray(data)
        flipped[place] ^= 0x55
        for kind, changed in (("flip", bytes(flipped)), ("cut", data[:place])):
            path.write_bytes(changed)
            name = f"{kind}-{number}"
            try:
                with AgentMemory.restore(path, agent_id=name, model=model, home=home) as copy:
                    assert ([turn.messages for turn in copy.history()], state_of(copy)["kv"]) == wanted
            except ArchiveError:
                refused += 1
                assert name not in {info.agent_id for info in AgentMemory.list(home)}
    assert refused >= 20


def test_a_token_id_the_model_does_not_know_is_refused(
    memory: AgentMemory, home: Home, model: LanguageModel, tmp_path: Path
) -> None:
    """In a text export, before a token is forwarded."""
    path = AgentMemory.export("ada", tmp_path / "ada.agentmem", home=home)
    with zipfile.ZipFile(path) as archive:
        members = {item: archive.read(item) for item in archive.namelist()}
    _row(lambda v: v["token_ids"].__setitem__(0, 1 << 20))(members)
    with zipfile.ZipFile(path, "w") as archive:
        for item, data in members.items():
            archive.writestr(item, data)
    with counted(model.binding.model) as lengths, pytest.raises(ArchiveError, match="token id"):
        AgentMemory.restore(path, agent_id="eve", model=model, home=home)
    assert lengths == []
    assert [info.agent_id for info in AgentMemory.list(home)] == ["ada"]


def test_an_export_that_cannot_be_written_is_said(memory: AgentMemory, home: Home, tmp_path: Path) -> None:
    """ArchiveError that names the file, also where clearing up fails for the same reason; the agent is let go of."""
    (tmp_path / "file").touch()

    with pytest.raises(ArchiveError, match=r"cannot write .*ada"):
        AgentMemory.export("ada", tmp_path / "file" / "ada.agentmem", home=home)

    assert AgentMemory.export("ada", tmp_path / "ada.agentmem", home=home).exists()

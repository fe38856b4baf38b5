"""Encrypted agents through the public face: the same memory, bit for bit, and nothing plain on disk."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agentmem.agent import AgentMemory
from agentmem.cli.app import app
from agentmem.engine.model import LanguageModel
from agentmem.errors import ArchiveError, DamagedError, InputError, KeyNeededError, WrongKeyError
from agentmem.store import DiskHome, InMemoryHome, MemoryKey
from support.tiny_language_model import SMALL, language_model

AT = "2026-01-02T03:04:05+00:00"
SECRET = "zanzibar"
FILLER = "The quick brown fox jumps over the lazy dog. How far is it? About 12 km, and back again. " * 2
KEY = MemoryKey.generate()


@pytest.fixture
def model() -> LanguageModel:
    """The shared tiny model."""
    return language_model()


def live(home: Path, model: LanguageModel, key: MemoryKey | None, **options: Any) -> AgentMemory:
    """A few turns that leave the window, a fork, a rewind, a forgotten one."""
    memory = AgentMemory.resume("ada", model=model, home=home, key=key, config=SMALL, **options)
    memory.chat("Hello, I am Ann, how are you?", max_new_tokens=12, at=AT)
    memory.observe(f"The secret is {SECRET}. " + FILLER, source=f"{SECRET}.txt", at=AT)
    memory.chat("How far is it?", max_new_tokens=12, at=AT)
    memory.append([{"role": "user", "content": "Forget this one."}], at=AT)
    memory.forget(turn=4)
    return memory


def texts(memory: AgentMemory) -> list[Any]:
    """What the next turns say, and what the memory holds."""
    said = [memory.chat(text, max_new_tokens=8, at=AT) for text in ("And?", "Who am I?")]
    return [(reply.text, reply.token_ids, reply.usage) for reply in said] + [len(memory.history())]


@pytest.mark.parametrize("selector", ["two-stage", "infllm"])
def test_encryption_changes_nothing_but_the_files(
    tmp_path: Path, model: LanguageModel, selector: str
) -> None:
    """The same replies, to the token and the share, after each was opened anew; nothing plain on disk."""
    found = []
    for name, key in (("plain", None), ("locked", KEY)):
        live(tmp_path / name, model, key).close()
        config = SMALL.changed(selector=selector)
        with AgentMemory.resume("ada", model=model, home=tmp_path / name, key=key, config=config) as memory:
            assert memory.resumed.tokens_prefilled == 0
            found.append([*texts(memory), [(b.start, b.share) for b in memory.explain().blocks]])
            assert memory.verify(deep=True).ok
    assert found[0] == found[1]
    holds = {
        name: any(
            SECRET.encode() in path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()
        )
        for name in ("plain", "locked")
    }
    assert holds == {"plain": True, "locked": False}


def test_without_the_key(tmp_path: Path, model: LanguageModel) -> None:
    """A typed error, also where a model would have to be loaded first; a live agent is not disturbed."""
    memory = live(tmp_path, model, KEY)
    for key, error in ((None, KeyNeededError), (MemoryKey.generate(), WrongKeyError)):
        with pytest.raises(error):
            AgentMemory.resume("ada", model=model, home=tmp_path, key=key, read_only=True)
        with pytest.raises(error):
            AgentMemory.export("ada", tmp_path / "file", home=tmp_path, key=key)
    assert not (tmp_path / "file").exists()
    assert [info.model for info in AgentMemory.list(tmp_path)] == ["tiny-llama"]
    assert memory.chat("Still there?", max_new_tokens=2, at=AT).usage.cached_tokens
    with pytest.raises(InputError, match="MemoryKey"):
        AgentMemory.resume("ada", model=model, home=tmp_path, key="words")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="on disk"):
        AgentMemory.resume("eve", model=model, home=InMemoryHome(), key=KEY)


def test_a_fork_is_locked_too_and_keys_can_change(tmp_path: Path, model: LanguageModel) -> None:
    """The fork opens with its parent's key, until one of them gets another."""
    memory = live(tmp_path, model, KEY)
    fork = memory.fork("eve")
    before = len(fork.history())
    fork.close()
    memory.close()
    new = MemoryKey.from_passphrase("open sesame")
    AgentMemory.change_key("eve", new, home=tmp_path, key=KEY)
    with pytest.raises(WrongKeyError):
        AgentMemory.resume("eve", model=model, home=tmp_path, key=KEY)
    with AgentMemory.resume("eve", model=model, home=tmp_path, key=new) as fork:
        assert len(fork.history()) == before
    with AgentMemory.resume("ada", model=model, home=tmp_path, key=KEY) as memory:
        assert memory.verify(deep=True).ok
    with pytest.raises(KeyNeededError):
        AgentMemory.change_key("ada", new, home=InMemoryHome())


@pytest.mark.parametrize("kv", [True, False])
def test_exports_are_encrypted_with_the_agents_key(tmp_path: Path, model: LanguageModel, kv: bool) -> None:
    """For its owner alone, unreadable without the key, and restored as an encrypted agent with it."""
    memory = live(tmp_path / "home", model, KEY)
    history = [turn.messages for turn in memory.history() if not turn.forgotten]
    memory.close()
    path = AgentMemory.export("ada", tmp_path / "file", kv=kv, home=tmp_path / "home", key=KEY)
    data = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert not zipfile.is_zipfile(path)
    assert SECRET.encode() not in data
    for key, error in ((None, KeyNeededError), (MemoryKey.generate(), WrongKeyError)):
        with pytest.raises(error):
            AgentMemory.restore(path, agent_id="bob", model=model, home=tmp_path / "home", key=key)
    copy = AgentMemory.restore(path, agent_id="bob", model=model, home=tmp_path / "home", key=KEY)
    assert [turn.messages for turn in copy.history() if not turn.forgotten] == history
    copy.close()
    with pytest.raises(KeyNeededError):
        AgentMemory.resume("bob", model=model, home=tmp_path / "home")
    for place in [*range(0, 400, 13), *range(400, len(data), len(data) // 15), len(data) - 1]:
        changed = bytearray(data)
        changed[place] ^= 4
        path.write_bytes(changed)
        with pytest.raises((ArchiveError, WrongKeyError)):
            AgentMemory.restore(path, agent_id="eve", model=model, home=tmp_path / "home", key=KEY)
    for size in (0, 5, 100, 300, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises((ArchiveError, WrongKeyError)):
            AgentMemory.restore(path, agent_id="eve", model=model, home=tmp_path / "home", key=KEY)
    assert {info.agent_id for info in AgentMemory.list(tmp_path / "home")} == {"ada", "bob"}


def test_a_plain_agent_becomes_an_encrypted_one(tmp_path: Path, model: LanguageModel) -> None:
    """By an export and a restore with a key; the plain one is then deleted."""
    live(tmp_path, model, None).close()
    path = AgentMemory.export("ada", tmp_path / "file", kv=True, home=tmp_path)
    assert zipfile.is_zipfile(path)
    AgentMemory.restore(path, agent_id="locked", model=model, home=tmp_path, key=KEY).close()
    with pytest.raises(KeyNeededError, match="not encrypted"):
        AgentMemory.resume("ada", model=model, home=tmp_path, key=KEY)
    AgentMemory.delete("ada", tmp_path)
    path.unlink()
    assert not any(SECRET.encode() in one.read_bytes() for one in tmp_path.rglob("*") if one.is_file())


def test_files_of_an_export_of_many_chunks(tmp_path: Path) -> None:
    """What is longer than a chunk is read back from anywhere; chunks that change places are noticed."""
    from agentmem.store.encrypted_file import EncryptedFileReader, EncryptedFileWriter

    path, data = tmp_path / "file", os.urandom(200_000)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with EncryptedFileWriter(fd, KEY) as writer:
        for start in range(0, len(data), 7001):
            writer.write(data[start : start + 7001])
    os.close(fd)
    with io.BufferedReader(EncryptedFileReader(path, KEY)) as reader:
        assert reader.read() == data
        for place in (0, 65_535, 65_536, 199_990):
            reader.seek(place)
            assert reader.read(20) == data[place : place + 20]
    raw = path.read_bytes()
    size, body = 65_536 + 16, raw[-(200_000 + 4 * 16) :]
    swapped = raw[: -len(body)] + body[size : 2 * size] + body[:size] + body[2 * size :]
    path.write_bytes(swapped)
    with io.BufferedReader(EncryptedFileReader(path, KEY)) as reader, pytest.raises(ArchiveError):
        reader.read()
    path.write_bytes(raw[: -len(body)] + body[: 2 * size])
    with pytest.raises(ArchiveError):
        EncryptedFileReader(path, KEY)


def test_the_environment_names_the_key(
    tmp_path: Path, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file or words, for the library and every verb; the verbs make and change keys."""
    home, file = tmp_path / "home", tmp_path / "my.key"
    told = CliRunner().invoke(app, ["new-key", str(file), "--json"])
    assert told.exit_code == 0, told.output
    monkeypatch.setenv("AGENTMEM_KEY_FILE", str(file))
    AgentMemory.resume("ada", model=model, home=home, config=SMALL).close()
    assert DiskHome(home).list()[0].agent_id == "ada"
    CliRunner().invoke(app, ["new-key", str(tmp_path / "new.key")])
    told = CliRunner().invoke(app, ["change-key", "ada", str(tmp_path / "new.key"), "--home", str(home)])
    assert told.exit_code == 0, told.output
    told = CliRunner().invoke(app, ["history", "ada", "--home", str(home)])
    assert (told.exit_code, "WrongKey" in told.output or "not opened by this key" in told.output) == (1, True)
    monkeypatch.setenv("AGENTMEM_KEY_FILE", str(tmp_path / "new.key"))
    told = CliRunner().invoke(app, ["history", "ada", "--home", str(home)])
    assert told.exit_code == 0, told.output
    monkeypatch.delenv("AGENTMEM_KEY_FILE")
    monkeypatch.setenv("AGENTMEM_PASSPHRASE", "open sesame")
    AgentMemory.resume("eve", model=model, home=home, config=SMALL).close()
    with pytest.raises(WrongKeyError):
        AgentMemory.resume("eve", model=model, home=home, key=KEY)


def test_what_is_made_of_an_encrypted_agent_is_encrypted(tmp_path: Path, model: LanguageModel) -> None:
    """A rebuild equals that of a plain agent; a re-encoded one is locked too; what is damaged is mended."""
    found = []
    for name, key in (("plain", None), ("locked", KEY)):
        memory = live(tmp_path / name, model, key)
        memory.forget(source=f"{SECRET}.txt", mode="rebuild")
        memory.close()
        with AgentMemory.resume("ada", model=model, home=tmp_path / name, key=key) as memory:
            found.append(texts(memory))
            assert memory.verify(deep=True).ok
            assert not memory.repair().found
            memory.reencode(model, agent_id="eve").close()
            memory.reencode(model).close()
        with AgentMemory.resume("eve", model=model, home=tmp_path / name, key=key) as eve:
            found[-1].append([turn.messages for turn in eve.history()])
    assert found[0] == found[1]
    for agent_id in ("ada", "eve"):
        with pytest.raises(KeyNeededError):
            AgentMemory.resume(agent_id, model=model, home=tmp_path / "locked")
    assert not any(
        b"How far" in one.read_bytes() for one in (tmp_path / "locked").rglob("*") if one.is_file()
    )
    segment = next((tmp_path / "locked").glob("agents/*/kv/*"))
    data = bytearray(segment.read_bytes())
    data[8192:60000:7] = bytes(len(data[8192:60000:7]))
    segment.write_bytes(data)
    names = [info.agent_id for info in AgentMemory.list(tmp_path / "locked", key=KEY)]
    damaged = 0
    for name in names:
        with AgentMemory.resume(name, model=model, home=tmp_path / "locked", key=KEY) as memory:
            if not memory.verify(deep=True).ok:
                damaged += 1
                report = memory.repair()
                assert report.ok and {one.outcome for one in report.ranges} == {"exact"}
                assert memory.verify(deep=True).ok
    assert damaged == 1


def test_a_damaged_index_is_salvaged_with_the_key(tmp_path: Path, model: LanguageModel) -> None:
    """A record of its log is lost: the agent is made usable again and repaired, and goes on; without the key it is not."""
    memory = live(tmp_path, model, KEY)
    before = [(turn.turn, turn.messages) for turn in memory.history()]
    memory.close()
    (index,) = tmp_path.glob("agents/*/agent.enc")
    data = bytearray(index.read_bytes())
    data[-40] ^= 1
    index.write_bytes(data)
    with pytest.raises(DamagedError):
        AgentMemory.resume("ada", model=model, home=tmp_path, key=KEY)
    with pytest.raises(KeyNeededError):
        AgentMemory.salvage("ada", home=tmp_path)
    planned = AgentMemory.salvage("ada", home=tmp_path, key=KEY, dry_run=True)
    report = AgentMemory.salvage("ada", home=tmp_path, key=KEY)
    assert planned.losses == report.losses and any("agent.enc" in loss for loss in report.losses)
    with AgentMemory.resume("ada", model=model, home=tmp_path, key=KEY) as memory:
        assert memory.repair().ok and memory.verify(deep=True).ok
        left = [(turn.turn, turn.messages) for turn in memory.history()]
        assert [one for one in left if one[1]] == [one for one in before if one in left and one[1]]
        assert memory.chat("And now?", max_new_tokens=4, at=AT).usage.cached_tokens
    assert not any(SECRET.encode() in one.read_bytes() for one in tmp_path.rglob("*") if one.is_file())

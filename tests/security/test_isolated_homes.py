"""Isolation: ids of any text, links, modes, and text that would like to be SQL or a path. No agent reaches another."""

from __future__ import annotations

import json
import os
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agentmem.agent import AgentMemory
from agentmem.cli.app import app
from agentmem.engine.model import LanguageModel
from agentmem.errors import AgentMemError, AgentNotFoundError, DamagedError, InputError, StateNotFoundError
from agentmem.store import DiskHome, MemoryKey
from support.stores import add_turn, contents, create, expected, same
from support.tiny_language_model import SMALL, language_model

REFUSED = {
    "empty": "",
    "10 KB": "x" * 10_000,
    "newline": "ada\n",
    "a line within": "a\nda",
    "null": "ada\0",
    "escape": "\x1b[2Jada",
    "half a pair": "\ud800",
    "C1": "ada\x85",
}
ACCEPTED = {
    "up": "../../../etc/passwd",
    "absolute": "/etc/passwd",
    "dot": ".",
    "dots": "..",
    "hidden": ".new-ada",
    "tilde": "~root",
    "windows": "..\\..\\ada",
    "reserved": "CON",
    "option": "--help",
    "sql": "'; DROP TABLE identity; --",
    "like": "%_",
    "url": "file:///ada?mode=rw#x",
    "percent": "%2e%2e%2fada",
    "space": " ada ",
    "upper": "ADA",
    "lower": "ada",
    "long s": "aſa",
    "cyrillic": "аda",
    "fullwidth": "ａｄａ",
    "right to left": "ada\u202e",
    "joined": "a\u200dda",
    "emoji": "🐕‍🦺",
    "512": "é" * 512,
}


@pytest.fixture
def model() -> LanguageModel:
    """The shared tiny model."""
    return language_model()


def below(folder: Path) -> Iterator[Path]:
    """Everything below a folder, links not followed."""
    for parent, folders, names in os.walk(folder):
        yield from (Path(parent, name) for name in (*folders, *names))


@pytest.mark.parametrize("agent_id", REFUSED.values(), ids=REFUSED)
def test_ids_that_are_refused(tmp_path: Path, agent_id: str) -> None:
    """By every verb, with a typed error, before any file is made; by the command line in one line."""
    home = DiskHome(tmp_path / "home")
    for verb in (home.exists, home.open, home.peek, home.delete, lambda name: create(home, name)):
        with pytest.raises(InputError, match="agent id"):
            verb(agent_id)
    with pytest.raises(InputError):
        home.fork("ada", agent_id)
    assert not (tmp_path / "home").exists()
    if agent_id.isprintable():
        told = CliRunner().invoke(app, ["history", "--home", str(home.home), "--", agent_id])
        assert told.exit_code == 1
        assert len(told.stderr.strip().splitlines()) == 1


def test_ids_of_any_other_text_are_agents_of_their_own(tmp_path: Path) -> None:
    """However alike or however much like a path: each holds its own turn, in a folder named by a hash, in the home."""
    home = DiskHome(tmp_path / "home", segment_tokens=64)
    for number, agent_id in enumerate(ACCEPTED.values()):
        store = create(home, agent_id)
        add_turn(store, number, 5)
        store.close()
    folders = sorted(path.name for path in (home.home / "agents").iterdir())
    assert len(folders) == len(ACCEPTED)
    assert all(len(name) == 64 and set(name) <= set("0123456789abcdef") for name in folders)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    for number, agent_id in enumerate(ACCEPTED.values()):
        store = home.open(agent_id, read_only=True)
        assert same(contents(store.log), expected((number, 5)))
        store.close()
    told = CliRunner().invoke(app, ["list", "--json", "--home", str(home.home)])
    assert {row["agent_id"] for row in json.loads(told.stdout)} == set(ACCEPTED.values())
    home.delete(ACCEPTED["up"])
    assert not home.exists(ACCEPTED["up"])
    assert all(home.exists(agent_id) for name, agent_id in ACCEPTED.items() if name != "up")


def test_two_ways_to_write_a_letter_are_one_id(tmp_path: Path) -> None:
    """Composed and decomposed text look the same to people, so they are the same agent."""
    home = DiskHome(tmp_path)
    create(home, unicodedata.normalize("NFD", "Zoë")).close()
    assert home.open(unicodedata.normalize("NFC", "Zoë")).identity.agent_id == "Zo\u00eb"
    assert len(home.list()) == 1


def test_the_command_line_takes_any_id(tmp_path: Path) -> None:
    """Verbs name what is not there, whatever it is called, and touch nothing."""
    for agent_id in (ACCEPTED["up"], ACCEPTED["sql"], ACCEPTED["option"], ACCEPTED["emoji"]):
        told = CliRunner().invoke(
            app, ["rm", "--yes", "--json", "--home", str(tmp_path / "home"), "--", agent_id]
        )
        assert told.exit_code == 1
        assert json.loads(told.stdout)["error"]["type"] == "AgentNotFoundError"
    assert list(tmp_path.iterdir()) == []


# -- links ---------------------------------------------------------------------------------------------


def test_a_home_may_be_a_link(tmp_path: Path) -> None:
    """Where agents are is the user's to say."""
    (tmp_path / "real").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "real")
    home = DiskHome(tmp_path / "home")
    add_turn(create(home), 1, 5)
    assert len(DiskHome(tmp_path / "real").open("ada", read_only=True).turns()) == 1


@pytest.mark.parametrize(
    "name", ["", "agent.db", "kv", "digests", "lock", "kv/000000.safetensors", "agent.mark"]
)
def test_an_agents_files_are_never_links(tmp_path: Path, name: str) -> None:
    """Neither its folder nor anything in it: another's files are not read, written or removed in its name."""
    home, other = DiskHome(tmp_path / "home"), DiskHome(tmp_path / "other")
    for place in (home, other):
        store = create(place)
        add_turn(store, 1, 5)
        store.close()
    ours, theirs = (next((place.home / "agents").iterdir()) for place in (home, other))
    before = {path: path.read_bytes() for path in below(theirs) if path.is_file() and path.name != "lock"}
    target = ours / name if name else ours
    target.rename(tmp_path / "aside")
    target.symlink_to(theirs / name if name else theirs)
    try:
        store = home.open("ada")
        same(contents(store.log), expected((1, 5)))
        add_turn(store, 2, 5)
        store.close()
        assert name == "agent.mark"  # says nothing, and is not written through
    except AgentMemError:
        pass
    assert {path: path.read_bytes() for path in before} == before
    if not name:
        with pytest.raises(DamagedError, match="symbolic link"):
            home.delete("ada")
        assert home.list()[0].agent_id.startswith("(damaged")


# -- modes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, MemoryKey.generate()], ids=["plain", "encrypted"])
def test_a_lived_in_home_is_its_owners_alone(
    tmp_path: Path, model: LanguageModel, key: MemoryKey | None
) -> None:
    """Whatever was done, whatever the umask: folders 0700, files 0600, while it is open and after."""
    before = os.umask(0)
    try:
        memory = AgentMemory.resume(
            "ada", model=model, home=tmp_path / "home", key=key, config=SMALL, system="Be kind."
        )
        memory.chat("Hello", max_new_tokens=4)
        memory.observe("A text of some length. " * 12, source="notes.txt", trust="web")
        memory.quarantine("notes.txt")
        state = memory.checkpoint()
        memory.append([{"role": "user", "content": "One more"}])
        memory.rewind(state)
        reader = AgentMemory.resume("ada", model=model, home=tmp_path / "home", key=key, read_only=True)
        modes_of(tmp_path / "home")
        fork = memory.fork("eve")
        fork.append([{"role": "user", "content": "Only here"}])
        fork.forget(source="notes.txt", dry_run=True)
        fork.close()
        memory.append([{"role": "user", "content": "Forget me"}])
        memory.forget(match="Forget me")
        reader.close()
        memory.close()
        path = AgentMemory.export(
            "ada", tmp_path / "home" / "ada.export", kv=True, home=tmp_path / "home", key=key
        )
        AgentMemory.restore(path, agent_id="bob", model=model, home=tmp_path / "home", key=key).close()
        if key is not None:
            AgentMemory.change_key("bob", MemoryKey.generate(), home=tmp_path / "home", key=key)
            key.save(tmp_path / "home" / "my.key")
        assert modes_of(tmp_path / "home") > 20
    finally:
        os.umask(before)


def modes_of(home: Path) -> int:
    """How many files and folders there are; all of them must be their owner's alone."""
    found = list(below(home))
    wrong = {
        str(path.relative_to(home)): oct(path.lstat().st_mode)
        for path in found
        if stat.S_IMODE(path.lstat().st_mode) != (0o700 if path.is_dir() else 0o600)
    }
    assert wrong == {}
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    return len(found)


# -- text that would like to be something else ---------------------------------------------------------


def test_no_text_becomes_sql(tmp_path: Path) -> None:
    """Whatever is in a text, a source, a label, a note, a state id or a query: it is stored, found, and nothing else."""
    evil = "x'); DROP TABLE turns; --\" OR 1=1 %_* NEAR(a b) ^ {}:-"
    home = DiskHome(tmp_path)
    store = create(home, evil)
    add_turn(
        store, 1, 5, messages=[{"role": "user", "content": evil, "metadata": {evil: evil}}],
        source=evil, part=0, trust=evil, state_id=evil, kind=evil, receipt={evil: 1},
    )  # fmt: skip
    store.note(evil, evil)
    assert store.noted(evil) == evil
    assert store.noted(evil + "'") is None
    assert store.find_state(evil).messages[0]["metadata"] == {evil: evil}
    assert len(store.observed_parts(evil)) == 1
    assert store.observed_parts("x' OR '1'='1") == []
    with pytest.raises(StateNotFoundError):
        store.find_state("' OR '1'='1")
    for query in (evil, '"', "'", "*", "drop table", "turns*", "NEAR(a b)", "a AND NOT b", "words:x", "-x"):
        store.search(query)
    assert len(store.search("drop")) == 1
    assert store.verify(deep=True).ok
    store.close()
    assert [info.agent_id for info in home.list()] == [evil]


def test_agents_of_one_home_do_not_meet(tmp_path: Path, model: LanguageModel) -> None:
    """States, turns and words of one are unknown to the other."""
    ada, eve = (AgentMemory.resume(name, model=model, home=tmp_path, config=SMALL) for name in ("ada", "eve"))
    ada.append([{"role": "user", "content": "zanzibar"}])
    assert eve.search("zanzibar") == []
    with pytest.raises(StateNotFoundError):
        eve.rewind(ada.checkpoint())
    assert eve.history() == []
    ada.close()
    with pytest.raises(AgentNotFoundError):
        AgentMemory.resume("adà", model=model, home=tmp_path, create=False)

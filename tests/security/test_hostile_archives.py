"""Exports that somebody made to do harm: names that climb, links, bombs, pickles. Refused, and nothing is touched."""

from __future__ import annotations

import json
import stat
import zipfile
from pathlib import Path

import pytest

from agentmem.agent import AgentMemory, archive_file
from agentmem.engine.model import LanguageModel
from agentmem.errors import AgentMemError, ArchiveError, DamagedError
from agentmem.store import DiskHome
from support.stores import add_turn, contents, create
from support.tiny_language_model import SMALL, language_model

PICKLE = b"cos\nsystem\n(S'touch %s'\ntR."
"""Runs a command when it is unpickled."""


@pytest.fixture
def model() -> LanguageModel:
    """The shared tiny model."""
    return language_model()


@pytest.fixture
def good(tmp_path: Path, model: LanguageModel) -> Path:
    """A whole export, with keys and values."""
    with AgentMemory.resume("ada", model=model, home=tmp_path / "home", config=SMALL) as memory:
        memory.append([{"role": "user", "content": "Hello there"}])
    return AgentMemory.export("ada", tmp_path / "good", kv=True, home=tmp_path / "home")


def changed(good: Path, **members: bytes | None) -> Path:
    """The export with some members replaced, added, or (None) left out."""
    target = good.with_name("changed")
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        kept = {name: source.read(name) for name in source.namelist()}
        for name, data in {**kept, **members}.items():
            if data is not None:
                archive.writestr(name, data)
    return target


def restored(path: Path, model: LanguageModel) -> None:
    """Try to make an agent of it."""
    AgentMemory.restore(path, agent_id="eve", model=model, home=path.parent / "home").close()


@pytest.mark.parametrize("name", ["../../evil", "{here}/evil", "..\\evil", "kv/../../evil", "C:evil"])
def test_members_with_names_that_climb_are_never_written(good: Path, model: LanguageModel, name: str) -> None:
    """Nothing is unpacked to disk: a foreign member is not even read."""
    before = {path for path in good.parent.rglob("*") if "home" not in path.parts}
    restored(changed(good, **{name.format(here=good.parent): b"evil"}), model)
    after = {path for path in good.parent.rglob("*") if "home" not in path.parts}
    assert {path.name for path in after - before} <= {"changed"}
    assert not Path("{here}/evil").exists()
    assert not list(good.parent.parent.glob("evil*"))


def test_a_member_that_is_a_link_is_not_followed(good: Path, model: LanguageModel, tmp_path: Path) -> None:
    """Its content is the path it points at, which is no manifest."""
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    target = good.with_name("changed")
    link = zipfile.ZipInfo("manifest.json")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(target, "w") as archive:
        for name in source.namelist():
            archive.writestr(
                link if name == "manifest.json" else name,
                str(secret) if name == link.filename else source.read(name),
            )
    with pytest.raises(ArchiveError):
        restored(target, model)


def test_bombs_are_not_unpacked(good: Path, model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes that claim to be more than a member may be: refused at the limit, whatever they claim."""
    with pytest.raises(ArchiveError, match="larger than"):
        restored(changed(good, **{"manifest.json": bytes(40 << 20)}), model)
    monkeypatch.setattr(archive_file, "LARGEST_TEXT", 1 << 20)
    with pytest.raises(ArchiveError, match="larger than"):
        restored(changed(good, **{"turns.jsonl": b" " * (5 << 20)}), model)
    name = next(name for name in zipfile.ZipFile(good).namelist() if name.startswith("kv/"))
    with pytest.raises(ArchiveError, match="larger than"):
        restored(changed(good, **{name: bytes(30 << 20)}), model)


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 100_000, "1" * 100_000, '{"format": 1e999}', "NaN", "\ud800", "nul\0l"]
)
def test_json_that_wants_to_break_a_parser(good: Path, model: LanguageModel, text: str) -> None:
    """Deep, long, endless or no JSON at all: one typed error."""
    data = text.encode(errors="surrogatepass")
    for name in ("manifest.json", "turns.jsonl"):
        with pytest.raises(ArchiveError):
            restored(changed(good, **{name: data}), model)


@pytest.mark.parametrize(
    "fields",
    [
        {"agent_id": "x\n"}, {"agent_id": "x" * 10_000}, {"tokens": -1}, {"tokens": 1 << 62}, {"turns": 7}, {"kv": "yes"},
        {"config": {"selector": "__import__('os')"}}, {"config": {"window_tokens": 1 << 40}}, {"facts": []},
        {"layout": {"layers": [[1, 1]], "dtype": "../x"}}, {"fingerprint": {}}, {"quarantine": [{"source": 3}]},
        {"quarantine": [{"source": "a", "since": "b", "reason": None, "x": 1}]},
    ],
)  # fmt: skip
def test_manifests_that_lie(good: Path, model: LanguageModel, fields: dict[str, object]) -> None:
    """Every field is checked before anything is made of it."""
    with zipfile.ZipFile(good) as source:
        manifest = {**json.loads(source.read("manifest.json")), **fields}
    path = changed(good, **{"manifest.json": json.dumps(manifest).encode()})
    with pytest.raises(AgentMemError):
        AgentMemory.restore(path, model=model, home=good.parent / "other")
    assert DiskHome(good.parent / "other").list() == []


def test_no_pickle_is_ever_loaded(good: Path, model: LanguageModel, tmp_path: Path) -> None:
    """In the place of every member of an export and every file of an agent: an error, and no command was run."""
    proof = tmp_path / "proof"
    bomb = PICKLE % str(proof).encode()
    with zipfile.ZipFile(good) as source:
        for name in source.namelist():
            with pytest.raises(ArchiveError):
                restored(changed(good, **{name: bomb}), model)
    good.write_bytes(bomb)
    with pytest.raises(ArchiveError):
        restored(good, model)
    home = DiskHome(tmp_path / "files")
    store = create(home)
    add_turn(store, 1, 40, blocks=2)
    store.close()
    folder = next((home.home / "agents").iterdir())
    for path in [path for path in sorted(folder.rglob("*")) if path.is_file()]:
        data = path.read_bytes()
        path.write_bytes(bomb)
        try:
            store = home.open("ada", read_only=True)
            contents(store.log)
            assert store.digests.count in (0, 2)
            store.close()
        except DamagedError:
            pass
        path.write_bytes(data)
    assert not proof.exists()

"""Agents that keep K/V in one byte an element: every verb does for them what it does for others."""

from __future__ import annotations

import base64
import json
import sqlite3
import zipfile
from pathlib import Path

import pytest

from agentmem.agent import AgentMemory
from agentmem.engine.model import LanguageModel
from agentmem.errors import ArchiveError, ConfigError, DamagedError, FingerprintMismatchError
from agentmem.store import DiskHome, InMemoryHome, MemoryKey
from agentmem.store.base import Home
from support.agent_state import state_of
from support.session_agent import log_tensors
from support.tiny_language_model import SMALL, language_model
from support.two_lives import STORY

AT = "2026-01-02T03:04:05+00:00"
INT8 = SMALL.changed(kv_dtype="int8")
SAME = ("checkpoint", "history", "ids", "pending", "kv", "log")


@pytest.fixture
def model() -> LanguageModel:
    """The shared tiny model, as most are: in bfloat16."""
    return language_model(dtype="bfloat16")


@pytest.fixture(params=["disk", "memory", "encrypted"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """Homes of every kind; on disk with files of a few tokens."""
    if request.param == "memory":
        return InMemoryHome()
    key = MemoryKey.generate() if request.param == "encrypted" else None
    return DiskHome(tmp_path / "home", segment_tokens=64, digest_blocks=4, key=key)


def live(home: Home, model: LanguageModel, name: str = "ada") -> AgentMemory:
    """An agent that was told things, answered, and forgot one."""
    memory = AgentMemory.resume(name, model=model, home=home, config=INT8, system="You are kind.")
    memory.observe(STORY, source="story", at=AT)
    memory.chat("The secret is zanzibar.", max_new_tokens=6, at=AT)
    memory.chat("How far is it?", max_new_tokens=6, at=AT)
    return memory


def next_reply(memory: AgentMemory) -> tuple[object, ...]:
    """What the next turn says, and what is held behind it."""
    reply = memory.chat("And again?", max_new_tokens=8, at=AT)
    return reply.token_ids, [(b.start, b.stop, b.share) for b in reply.receipt.blocks], state_of(memory)["kv"]


def segments(home: DiskHome) -> list[Path]:
    """The files of the agent's keys and values."""
    return sorted(home._folder("ada").glob("kv/*"))


def test_half_the_bytes_are_stored_and_it_goes_on_the_same(home: Home, model: LanguageModel) -> None:
    """Opened anew it says int8 without being told, reads nothing again, and goes on as one that never stopped."""
    memory, twin = live(home, model), live(InMemoryHome(), model)
    layout = memory._store.log.layout
    wrote = memory.observe("One more thing.", at=AT)
    twin.observe("One more thing.", at=AT)
    assert wrote.bytes_written == wrote.tokens_prefilled * layout.bytes_per_token
    assert (
        layout.bytes_per_token / model.layout.bytes_per_token == 18 / 32
    )  # heads of 16 here; of 64: 66 / 128
    memory.close()
    memory = AgentMemory.resume("ada", model=model, home=home)

    assert memory.config == INT8
    assert memory.resumed.tokens_prefilled == 0
    assert next_reply(memory) == next_reply(twin)
    memory.close()


def test_how_it_is_kept_is_fixed(home: Home, model: LanguageModel) -> None:
    """Another kv_dtype is refused both ways, with what to do instead; nothing has changed."""
    live(home, model).close()
    AgentMemory.resume("bob", model=model, home=home, config=SMALL).close()
    for name, config in (("ada", SMALL), ("bob", INT8)):
        for read_only in (False, True):
            with pytest.raises(ConfigError, match=r"was made with kv_dtype=.* reencode"):
                AgentMemory.resume(name, model=model, home=home, config=config, read_only=read_only)
    with AgentMemory.resume("ada", model=model, home=home, config=INT8.changed(window_tokens=32)) as memory:
        assert memory.config.window_tokens == 32
    assert [home.peek(name).layout.kv_dtype for name in ("ada", "bob")] == ["int8", "model"]
    assert home.peek("ada").fingerprint["kv_dtype"] == "bfloat16 as int8"
    with pytest.raises(FingerprintMismatchError, match="kv_dtype"):
        AgentMemory.resume("ada", model=language_model(dtype="float32"), home=home)


def test_forgetting_rewinding_and_forking(home: Home, model: LanguageModel) -> None:
    """A dropped turn's rows are zeros; without it, in a fork and after a rewind the turn is the same."""
    memory, twin = live(home, model), live(InMemoryHome(), model)
    state = memory.checkpoint()
    replies = []
    for one in (memory, twin):
        one.forget(match="zanzibar")
        ((low, high),) = one._store.log.dead
        assert high > low and not any(tensor[:, low:high].any() for tensor in log_tensors(one._store))
        replies.append(next_reply(one))
    assert replies[0] == replies[1]
    memory.rewind(state)
    assert next_reply(memory) == replies[1]
    memory.rewind(state)
    with memory.fork("bob") as fork:
        assert fork.config == INT8
        assert next_reply(fork) == replies[1]
    memory.close()


def test_rebuilding_without_a_turn(home: Home, model: LanguageModel) -> None:
    """What is left is, to the bit, an agent that never heard it."""
    lives = []
    for told in (True, False):
        memory = AgentMemory.resume(f"{told}", model=model, home=home, config=INT8)
        memory.append([{"role": "user", "content": "Hello, I am Ann."}], at=AT)
        if told:
            memory.observe("The secret is zanzibar.", source="secret", at=AT)
        memory.observe(STORY, source="story", at=AT)
        if told:
            memory.forget(source="secret", mode="rebuild")
        lives.append((log_tensors(memory._store), next_reply(memory)[:2]))
        memory.close()

    assert all(bool((a == b).all()) for a, b in zip(lives[0][0], lives[1][0], strict=True))
    assert lives[0][1] == lives[1][1]


@pytest.mark.parametrize("kv", [True, False])
def test_exports(home: Home, model: LanguageModel, tmp_path: Path, *, kv: bool) -> None:
    """With rows it is the same agent, bit for bit; from text alone it is an int8 agent that read it again."""
    memory = live(home, model)
    memory.forget(match="zanzibar")
    path = AgentMemory.export("ada", tmp_path / "ada.agentmem", kv=kv, home=home)
    other = InMemoryHome() if isinstance(home, InMemoryHome) else home.workshop("elsewhere")
    copy = AgentMemory.restore(path, model=model, home=other)

    assert copy.config == INT8
    assert copy._store.identity.layout.kv_dtype == "int8"
    if kv:
        wanted, found = state_of(memory), state_of(copy)
        assert {key: found[key] for key in ("checkpoint", "ids", "kv", "log")} == {
            key: wanted[key] for key in ("checkpoint", "ids", "kv", "log")
        }
        assert next_reply(copy) == next_reply(memory)
    else:
        assert copy.chat("And again?", max_new_tokens=4, at=AT).usage.cached_tokens
        assert copy.verify(deep=True).ok
    memory.close()
    copy.close()


def test_an_export_of_another_layout_is_refused(model: LanguageModel, tmp_path: Path) -> None:
    """Key channels that are not this model's, or no channels at all, are no agent; nothing is made."""
    home = DiskHome(tmp_path / "home")
    live(home, model).close()
    path = AgentMemory.export("ada", tmp_path / "good", kv=True, home=home)
    for number, said in enumerate(["AAAA", "no base64", 7, None]):
        target = tmp_path / f"bad-{number}"
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as archive:
            for name in source.namelist():
                data = source.read(name)
                if name == "manifest.json":
                    manifest = json.loads(data)
                    manifest["layout"]["int8_key_channels"] = said
                    data = json.dumps(manifest).encode()
                archive.writestr(name, data)
        with pytest.raises((ArchiveError, FingerprintMismatchError)):
            AgentMemory.restore(target, agent_id="eve", model=model, home=home)
    assert [info.agent_id for info in AgentMemory.list(home=home)] == ["ada"]


def test_reencoding_changes_how_it_is_kept(home: Home, model: LanguageModel) -> None:
    """The remedy works: from int8 to the model's own dtype and back, with the same words, also to another model."""
    memory = live(home, model)
    words = [turn.messages for turn in memory.history()]
    exact = memory.reencode(model, config=SMALL)
    assert (exact.config.kv_dtype, exact._store.identity.layout) == ("model", model.layout)
    again = exact.reencode(language_model(seed=3), config=INT8)

    assert again._store.identity.layout.kv_dtype == "int8"
    assert again._store.identity.fingerprint["kv_dtype"] == "float32 as int8"
    assert [turn.messages for turn in again.history()] == words
    assert again.chat("And again?", max_new_tokens=4, at=AT).usage.cached_tokens
    again.close()


@pytest.mark.parametrize("locked", [False, True])
def test_repair_gives_the_rows_that_were_lost(model: LanguageModel, tmp_path: Path, *, locked: bool) -> None:
    """Rounding is the same each time: all segments gone, every row comes back to the bit."""
    key = MemoryKey.generate() if locked else None
    home = DiskHome(tmp_path, segment_tokens=64, key=key)
    memory = live(home, model)
    before = state_of(memory)
    memory.close()
    for path in segments(home):
        path.unlink()
    with AgentMemory.resume("ada", model=model, home=home) as memory:
        assert not memory.verify(deep=True).ok
        with pytest.raises(DamagedError):
            state_of(memory)
        report = memory.repair()
        assert report.ok and {one.outcome for one in report.ranges} == {"exact"}
        assert memory.verify(deep=True).ok
        after = state_of(memory)
        assert {key: after[key] for key in SAME} == {key: before[key] for key in SAME}


def test_salvage_keeps_how_it_is_kept(model: LanguageModel, tmp_path: Path) -> None:
    """A note and a turn's row are spoilt, the options among them: it is an int8 agent still, and goes on."""
    home = DiskHome(tmp_path, segment_tokens=64)
    live(home, model).close()
    with sqlite3.connect(home._folder("ada") / "agent.db") as db:
        db.execute("UPDATE notes SET value = '{}' WHERE key = 'config'")
        db.execute("UPDATE turns SET messages = '[]' WHERE id = 2")
    db.close()
    with pytest.raises(DamagedError):
        AgentMemory.resume("ada", model=model, home=home)
    AgentMemory.salvage("ada", home=home)
    with AgentMemory.resume("ada", model=model, home=home) as memory:
        assert memory.config.kv_dtype == "int8"
        assert memory.repair().ok
        assert memory.chat("And again?", max_new_tokens=4, at=AT).usage.cached_tokens


@pytest.mark.parametrize(
    "said",
    [
        "torch.int8",
        "torch.int8 torch.float8 AAAA",
        "torch.int8 torch.bfloat16 AAAA",
        "torch.int8 torch.bfloat16 *",
    ],
)
def test_a_layout_that_says_nothing_is_damage(model: LanguageModel, tmp_path: Path, said: str) -> None:
    """An identity with the right checksum, but no channels, or others, is not guessed at."""
    home = DiskHome(tmp_path)
    memory = live(home, model)
    index = memory._store._index  # type: ignore[attr-defined]
    with index.transaction():
        index.execute("UPDATE identity SET dtype = ?", (said,))
    memory.close()

    with pytest.raises(DamagedError, match="table identity"):
        AgentMemory.resume("ada", model=model, home=home)


def test_its_files_are_safetensors(model: LanguageModel, tmp_path: Path) -> None:
    """Any reader opens a segment: int8 tensors of D codes and a bfloat16 scale in each row."""
    from safetensors import safe_open

    home = DiskHome(tmp_path, segment_tokens=64)
    memory = live(home, model)
    with safe_open(segments(home)[0], "pt") as file:
        rows = file.get_tensor("layers.0.keys")
    assert str(rows.dtype) == "torch.int8"
    assert rows.shape == (2, 64, 18)
    assert bool((rows == log_tensors(memory._store)[0][:, :64]).all())
    channels = base64.b64encode(memory._store.identity.layout.codec.channels).decode()  # type: ignore[union-attr]
    with sqlite3.connect(home._folder("ada") / "agent.db") as db:
        ((said,),) = db.execute("SELECT dtype FROM identity")
    db.close()
    assert said == f"torch.int8 torch.bfloat16 {channels}"
    memory.close()

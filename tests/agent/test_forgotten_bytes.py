"""What a drop leaves: no byte of the text in any file, also beside a reader, and nothing that a later reply stands on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentmem.agent import AgentMemory
from agentmem.agent.receipts import Reply
from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.errors import RebuildNeededError
from agentmem.store import DiskHome, InMemoryHome
from agentmem.store.base import Home
from support.agent_state import state_of
from support.listening import logits_of
from support.scripted import Scripted
from support.tiny_language_model import SMALL, language_model

AT = "2026-01-02T03:04:05+00:00"
SECRET = "xylophone-quartz mumpitz"
FILLER = "The quick brown fox jumps over the lazy dog. How far is it? About 12 km, and back again. "
LONG = (
    "One apple, two pears, three plums, four figs, five dates, six limes, seven nuts, eight peas, nine beans."
)
INFLLM = SMALL.changed(selector="infllm", positions="infllm", dense_tokens=24, reselect_every=0)


@pytest.fixture
def model() -> LanguageModel:
    """The shared tiny model."""
    return language_model()


@pytest.fixture
def home(tmp_path: Path) -> DiskHome:
    """A home on disk, with small files."""
    return DiskHome(tmp_path / "home", segment_tokens=64, digest_blocks=8)


@pytest.fixture
def memory(home: DiskHome, model: LanguageModel) -> Iterator[AgentMemory]:
    """An agent that was told a secret: on its branch, in a long text, on another branch, and in passing."""
    with AgentMemory.resume("ada", model=model, home=home, config=SMALL, system="You are kind.") as memory:
        memory.chat("Hello, my dog is called Biscuit.", max_new_tokens=4, at=AT)
        state = memory.checkpoint()
        memory.chat(f"Once it was {SECRET}.", max_new_tokens=4, at=AT)
        memory.rewind(state)
        memory.chat(f"The code is {SECRET}.", max_new_tokens=4, at=AT, source="me")
        memory.observe(FILLER + f"Somebody wrote {SECRET} here. " + FILLER, source="page", at=AT)
        memory.chat(f"Only now: {SECRET}", remember=False, max_new_tokens=4)
        memory.chat("How far is it?", max_new_tokens=6, at=AT)
        yield memory


def needles(memory: AgentMemory) -> list[bytes]:
    """The secret as text in two encodings, JSON-escaped or not, and as token ids."""
    words = SECRET.split()
    found = [text.encode(code) for text in (SECRET, *words) for code in ("utf-8", "utf-16-le", "utf-16-be")]
    for text in (f" {SECRET}", SECRET):
        ids = memory.tokenizer(text, add_special_tokens=False)["input_ids"]
        found.append(np.asarray(ids[1:-1], dtype="<i4").tobytes())
    return found


def found_in(folder: Path, wanted: Sequence[bytes]) -> dict[str, list[bytes]]:
    """File -> what it holds of it, for every file below a folder."""
    files = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hits = {name: [needle for needle in wanted if needle in data] for name, data in files.items()}
    return {name: rows for name, rows in hits.items() if rows}


@pytest.mark.parametrize("mode", ["drop", "rebuild"])
def test_no_file_holds_it(memory: AgentMemory, tmp_path: Path, mode: Any) -> None:
    """Text and ids, on every branch; also the bytes of K/V, of turns that were not remembered too."""
    wanted = needles(memory)
    assert len(found_in(tmp_path, wanted)["agent.db-wal"]) >= 3
    kv = _rows_behind_the_tail(tmp_path / "home")
    assert kv.any()
    receipt = memory.forget(match=SECRET, mode=mode)

    assert len(receipt.turns) == 3 and receipt.erased
    assert found_in(tmp_path, wanted) == {}
    assert not _rows_behind_the_tail(tmp_path / "home").any()
    memory.close()
    assert found_in(tmp_path, wanted) == {}


def _rows_behind_the_tail(home: Path) -> Any:
    """Values of the newest segment behind its last token."""
    (index,) = home.glob("agents/*/agent.db")
    with sqlite3.connect(f"file:{index}?mode=ro", uri=True) as db:
        number, used = db.execute(
            "SELECT segment, max(slot + count) FROM extents GROUP BY segment ORDER BY segment DESC"
        ).fetchone()
    db.close()
    from safetensors.numpy import load_file

    tensors = load_file(index.parent / "kv" / f"{number:06d}.safetensors")
    return np.concatenate([tensor[:, used:].ravel() for tensor in tensors.values()])


def test_an_idle_reader_is_no_hindrance(
    memory: AgentMemory, home: DiskHome, model: LanguageModel, tmp_path: Path
) -> None:
    """One that has the agent open and has read from it, but is not in the middle of reading."""
    wanted = needles(memory)
    with AgentMemory.resume("ada", model=model, home=home, read_only=True) as reader:
        assert reader.search("xylophone") and reader.history()
        state_of(reader)
        assert memory.forget(match=SECRET).erased
        assert found_in(tmp_path, wanted) == {}
    AgentMemory.resume("eve", model=model, home=home, config=SMALL).close()
    memory.close()
    AgentMemory.delete("ada", home)
    assert [info.agent_id for info in home.list()] == ["eve"]
    assert len(list((tmp_path / "home" / "agents").iterdir())) == 1


def test_space_is_given_back(memory: AgentMemory, home: DiskHome) -> None:
    """Whole blocks of the file system that held forgotten K/V are freed at once."""
    memory.observe(FILLER * 30, source="big", at=AT)
    before = home.list()[0].bytes
    receipt = memory.forget(source="big")
    freed = before - home.list()[0].bytes

    assert freed > 0.5 * receipt.tokens * memory._store.log.layout.bytes_per_token


def test_a_reader_delays_it_and_the_receipt_says_so(
    memory: AgentMemory, home: DiskHome, model: LanguageModel, tmp_path: Path
) -> None:
    """A transaction that still reads keeps old pages alive: told, noted, and finished by the next opening."""
    wanted = needles(memory)
    (index,) = tmp_path.glob("home/agents/*/agent.db")
    reader = sqlite3.connect(f"file:{index}?mode=ro", uri=True, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM turns").fetchone() == (6,)
    receipt = memory.forget(match=SECRET)

    assert not receipt.erased and "another process is reading" in receipt.residual
    assert memory.search("xylophone") == []
    assert reader.execute("SELECT count(*) FROM turns WHERE messages LIKE '%quartz%'").fetchone() == (3,)
    memory.close()
    assert found_in(tmp_path, wanted)
    reader.close()
    with AgentMemory.resume("ada", model=model, home=home) as again:
        assert found_in(tmp_path, wanted) == {}
        assert not again._store.upkeep.erasure_due
        assert again.verify(deep=True).ok


def test_a_reader_that_ends_in_time_is_waited_for_at_the_close(memory: AgentMemory, tmp_path: Path) -> None:
    """The closing tries once more."""
    wanted = needles(memory)
    (index,) = tmp_path.glob("home/agents/*/agent.db")
    reader = sqlite3.connect(f"file:{index}?mode=ro", uri=True, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM turns").fetchone()
    assert not memory.forget(match=SECRET).erased
    reader.close()
    memory.close()
    assert found_in(tmp_path, wanted) == {}


@pytest.mark.parametrize(
    "config",
    [SMALL, SMALL.changed(selector="sub-means-2"), INFLLM],
    ids=["sparse", "two-rows", "infllm"],
)
@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_no_reply_depends_on_it(
    tmp_path: Path, model: LanguageModel, config: MemoryConfig, kind: str
) -> None:
    """Two agents that were told different things, and dropped them, are one: K/V, digests, states and logits."""
    first, second = (
        _told_and_dropped(_home(kind, tmp_path / name), model, config, text)
        for name, text in (
            ("a", "The code is 4711 and nobody knows it."),
            ("b", "My pin was 9382 for my own house."),
        )
    )
    assert len(first._store.log.dead) == 1 and first._store.log.dead == second._store.log.dead
    for text in (FILLER, "How far is it?", FILLER, "What is the code?"):
        assert logits_of(first, text, at=AT) == logits_of(second, text, at=AT)
    found, wanted = state_of(first), state_of(second)
    assert found["kv"] == wanted["kv"] and found["digests"] == wanted["digests"]
    assert first.explain().blocks == second.explain().blocks


def _home(kind: str, folder: Path) -> Home:
    return DiskHome(folder, segment_tokens=64, digest_blocks=8) if kind == "disk" else InMemoryHome()


def _told_and_dropped(home: Home, model: LanguageModel, config: MemoryConfig, text: str) -> AgentMemory:
    memory = AgentMemory.resume("ada", model=model, home=home, config=config)
    memory.observe("Hello there, I am Ann, and my dog is called Biscuit. " + FILLER, source="start", at=AT)
    ids = memory.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) >= 24
    text = memory.tokenizer.decode(ids[:24])
    memory.append([{"role": "user", "content": text}], at=AT)
    memory.observe(FILLER * 2, source="after", at=AT)  # its blocks leave the window, and are digested
    memory.append([{"role": "user", "content": "How far is it?"}], at=AT)
    memory.forget(after="2026-01-01", match=text)
    for turn in memory.history()[-2:]:  # what may carry a trace of it goes, too
        memory.forget(turn=turn.turn)
    return memory


@pytest.mark.parametrize(
    "options", [{"max_new_tokens": 5}, {"stop": ("o",)}, {"stop": ("k y", "e g")}], ids=str
)
def test_a_reply_that_was_cut_short_goes_whole(
    home: DiskHome, model: LanguageModel, options: dict[str, Any]
) -> None:
    """None of its tokens lies in the turn after it: what is left is the same whatever the reply was."""
    left = []
    for answer in ("Thank you very much indeed.", "Please take the green house."):
        with AgentMemory.resume(answer, model=model, home=home, config=SMALL, system="Be kind.") as memory:
            memory.observe(FILLER, source="page", at=AT)
            reply = _answered(memory, "Hello.", answer, **options)
            _answered(memory, "And then?", "About 12 km.")
            assert reply.finish_reason in {"length", "stop_string"} and reply.text and reply.text != answer
            assert "cut short" not in memory.forget(turn=memory.history()[-2].turn).residual
            left.append(memory._store.token_ids(0, memory.tokens_held))
    assert left[0][-40:] != [-1] * 40 and -1 in left[0]
    assert [one for one in left[0] if one >= 0] == [one for one in left[1] if one >= 0]


def test_an_earlier_version_left_a_token_of_it_and_the_receipt_says_so(
    home: DiskHome, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent with a turn whose last token was to be forwarded by the next one: it is, and a drop tells of it."""
    with AgentMemory.resume("ada", model=model, home=home, config=SMALL, system="You are kind.") as memory:
        memory.observe(FILLER, source="page", at=AT)
        with monkeypatch.context() as patched:
            patched.setattr("agentmem.agent.turns._closed", lambda _session, said: said)
            reply = memory.chat("Hello.", max_new_tokens=5, at=AT)
    with AgentMemory.resume("ada", model=model, home=home) as memory:
        held = memory.tokens_held
        memory.append([{"role": "user", "content": "And?"}], at=AT)
        assert memory._store.token_ids(held, held + 1) == [reply.token_ids[-1]]
        assert "cut short" in memory.forget(turn=memory.history()[-2].turn).residual


def _answered(memory: AgentMemory, text: str, answer: str, **options: Any) -> Reply:
    scripted = Scripted(memory.tokenizer, answer)
    return memory.generate([{"role": "user", "content": text}], logits_processor=[scripted], at=AT, **options)


def test_a_phrase_split_between_two_parts_is_found(
    home: DiskHome, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both parts go, and no other; also where a phrase reaches over three of them."""
    monkeypatch.setattr("agentmem.agent.observing.PART_TOKENS", 16)
    with AgentMemory.resume("ada", model=model, home=home, config=SMALL) as memory:
        memory.observe("Hello there, this is a beginning.", at=AT)
        memory.observe(LONG, source="page", at=AT)
        parts = [turn for turn in memory.history() if turn.source == "page"]
        texts = [str(turn.messages[0]["content"]) for turn in parts]
        assert len(parts) >= 5
        two = (texts[1][-9:] + texts[2][:9]).upper().replace(" ", "\n ")
        three = texts[2][-5:] + texts[3] + texts[4][:5]
        assert not any(" ".join(two.casefold().split()) in text.casefold() for text in texts)

        assert memory.forget(match=two, dry_run=True).turns == [parts[1].turn, parts[2].turn]
        assert memory.forget(match=three, dry_run=True).turns == [parts[n].turn for n in (2, 3, 4)]
        assert memory.forget(match=texts[0][-4:] + "#" + texts[1][:4], dry_run=True).turns == []


def test_one_form_of_unicode_is_as_good_as_another(home: DiskHome, model: LanguageModel) -> None:
    """Composed or not, wide or not, in any case and spacing."""
    with AgentMemory.resume("ada", model=model, home=home, config=SMALL.changed(sink_tokens=0)) as memory:
        memory.append([{"role": "user", "content": "Das Cafe\u0301 in der STRASSE  heißt\n\uff21da"}], at=AT)
        for text in ("café in", "straße heisst", "ADA", "Caf\u00e9 in der"):
            assert memory.forget(match=text, dry_run=True).turns == [1], text


def test_sinks_that_were_larger_once_count(home: DiskHome, model: LanguageModel) -> None:
    """What lay in the sinks when later turns were read needs a rebuild, whatever the option says now."""
    with AgentMemory.resume("ada", model=model, home=home, config=SMALL.changed(sink_tokens=24)) as memory:
        memory.append([{"role": "user", "content": "Hello."}], at=AT)
        memory.append([{"role": "user", "content": "The code is 4711."}], at=AT)
        memory.append([{"role": "user", "content": FILLER}], at=AT)
    with (
        AgentMemory.resume("ada", model=model, home=home, config=SMALL.changed(sink_tokens=4)) as memory,
        pytest.raises(RebuildNeededError, match='mode="rebuild"'),
    ):
        memory.forget(match="4711")


def test_forks_that_still_hold_it_are_named(
    home: DiskHome, model: LanguageModel, memory: AgentMemory
) -> None:
    """A fork, and a fork of a deleted fork; not one made after, nor one that forgot it too."""
    with memory.fork("bob") as bob, bob.fork("eve") as eve, eve.fork("zoe") as zoe:
        zoe.forget(match=SECRET)
    AgentMemory.delete("bob", home)
    before = state_of(AgentMemory.resume("eve", model=model, home=home, read_only=True))
    receipt = memory.forget(match=SECRET)
    assert list(receipt.forks) == ["eve"] and "exports" in receipt.residual
    memory.fork("tom").close()
    with AgentMemory.resume("eve", model=model, home=home) as eve:
        assert state_of(eve) == before and eve.verify(deep=True).ok
        assert list(eve.forget(match=SECRET, mode="rebuild").forks) == []
    assert list(memory.forget(source="page", dry_run=True).forks) == []

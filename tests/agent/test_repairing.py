"""Repair with the model: each lost key and value is computed again to the bit it was committed with."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmem.agent import AgentMemory
from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.errors import ArchiveError, DamagedError
from agentmem.memory.modes import mode
from agentmem.store import DiskHome, InMemoryHome
from support.agent_state import state_of
from support.tiny_language_model import SMALL, language_model
from support.two_lives import STORY

AT = "2026-01-02T03:04:05+00:00"
INFLLM = SMALL.changed(selector="infllm", positions="infllm", dense_tokens=24, reselect_every=0)
CASES = {
    "dense-float32": ("float32", SMALL.changed(dense_tokens=900)),
    "sparse-float32": ("float32", SMALL),
    "sparse-bfloat16": ("bfloat16", SMALL),
    "question-float32": ("float32", SMALL.changed(selector="two-stage-question")),
    "infllm-float32": ("float32", INFLLM),
    "streaming-bfloat16": ("bfloat16", mode("streaming", SMALL)),
    "int8-bfloat16": ("bfloat16", SMALL.changed(kv_dtype="int8")),
}


def live(home: DiskHome | InMemoryHome, model: LanguageModel, config: MemoryConfig) -> AgentMemory:
    """An agent that was told things, answered greedily and by chance, changed its options, and went another way."""
    memory = AgentMemory.resume("ada", model=model, home=home, config=config, system="You are kind.")
    memory.chat("Hello there! My dog is called Biscuit.", max_new_tokens=12, at=AT)
    memory.observe(STORY, source="story", at=AT)
    state = memory.checkpoint()
    memory.chat("A turn that is left behind.", max_new_tokens=9, at=AT)
    memory.rewind(state)
    memory.chat("What is my dog called?", temperature=0.9, top_k=40, seed=7, max_new_tokens=20, at=AT)
    memory.chat("Please answer.", stop=("e",), max_new_tokens=12, at=AT)
    memory.append([{"role": "user", "content": "naïve café 🙂"}], at=AT)
    return memory


def segments(home: DiskHome) -> list[Path]:
    """The files of the only agent's keys and values."""
    return sorted(home._folder("ada").glob("kv/*"))


@pytest.mark.parametrize("name", CASES)
def test_all_keys_and_values_come_back(tmp_path: Path, name: str) -> None:
    """Every segment gone: all turns, decoded ones too, are what they were; the next reply is the twin's."""
    kind, config = CASES[name]
    model, home = language_model(dtype=kind), DiskHome(tmp_path, segment_tokens=64)
    memory, twin = live(home, model, config), live(InMemoryHome(), model, config)
    before = state_of(memory)
    memory.close()
    for path in segments(home):
        path.unlink()
    memory = AgentMemory.resume("ada", model=model, home=home)
    planned = memory.repair(dry_run=True)
    report = memory.repair()

    assert planned.dry_run and planned.tokens("encoded") == report.tokens("exact") > before["tokens"]
    assert report.ok and {one.outcome for one in report.ranges} == {"exact"}
    assert memory.verify(deep=True).ok
    after = state_of(memory)
    for key in ("checkpoint", "history", "ids", "pending", "kv", "log"):
        assert after[key] == before[key]
    replies = [one.chat("And again?", max_new_tokens=12, at=AT) for one in (memory, twin)]
    assert replies[0].token_ids == replies[1].token_ids
    assert state_of(memory)["kv"] == state_of(twin)["kv"]
    memory.close()


def hurt(path: Path, share: float) -> None:
    """Change bytes in the middle of a file, a page's worth."""
    data = bytearray(path.read_bytes())
    at = 8192 + int((len(data) - 8192) * share)
    for place in range(at, min(at + 600, len(data))):
        data[place] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_a_damaged_page_is_computed_again(tmp_path: Path, share: float) -> None:
    """Before, reading it is a DamagedError; after, nothing differs from before, and no other token has moved."""
    model, home = language_model(), DiskHome(tmp_path, segment_tokens=64)
    memory = live(home, model, SMALL)
    before = state_of(memory)
    memory.close()
    hurt(segments(home)[1], share)
    with AgentMemory.resume("ada", model=model, home=home) as memory:
        if not memory.verify(deep=True).ok:
            with pytest.raises(DamagedError):
                state_of(memory)
        report = memory.repair()
        assert report.ok and not report.tokens("encoded")
        assert report.tokens("exact") <= 64
        assert state_of(memory)["kv"] == before["kv"]
        assert memory.verify(deep=True).ok


def test_without_encoding_the_agent_goes_on(tmp_path: Path) -> None:
    """Damaged tokens are set aside: no turn attends to them; a later repair brings them back."""
    model, home = language_model(), DiskHome(tmp_path, segment_tokens=64)
    memory = live(home, model, SMALL)
    before = state_of(memory)
    memory.close()
    segments(home)[1].unlink()
    memory = AgentMemory.resume("ada", model=model, home=home)
    report = memory.repair(encode=False)
    dead = list(memory._store.log.dead)

    assert not report.ok and dead == [(64, 128)]
    reply = memory.chat("And again?", max_new_tokens=12, at=AT)
    assert not any(64 <= b.start and b.stop <= 128 for b in reply.receipt.blocks)
    assert memory.search("fox") and len(memory.history()) == 7
    memory.close()
    with pytest.raises(ArchiveError, match="set aside"):
        AgentMemory.export("ada", tmp_path / "ada.agentmem", kv=True, home=home)
    AgentMemory.export("ada", tmp_path / "ada.agentmem", home=home)
    with AgentMemory.resume("ada", model=model, home=home) as memory:
        assert list(memory._store.log.dead) == dead
        report = memory.repair()
        assert report.ok and not memory._store.log.dead
        memory.rewind(before["checkpoint"])
        assert state_of(memory)["kv"] == before["kv"]


def test_what_stood_on_forgotten_words_is_said_not_to_be_exact(tmp_path: Path) -> None:
    """A turn that attended to one forgotten since cannot be made to the same bits; the report says so."""
    model, home = language_model(), DiskHome(tmp_path, segment_tokens=64)
    memory = live(home, model, SMALL)
    memory.forget(source="story")
    memory.close()
    for path in segments(home):
        path.unlink()
    with AgentMemory.resume("ada", model=model, home=home) as memory:
        report = memory.repair()
        story = next(turn.turn for turn in memory.history() if turn.forgotten)

        assert report.ok and memory.verify(deep=True).ok
        assert all(one.outcome == "exact" for one in report.ranges if one.turn <= story)
        assert any(one.outcome == "encoded" for one in report.ranges if one.turn > story)
        assert memory.chat("And again?", max_new_tokens=12, at=AT).text is not None


def test_an_import_from_text_is_repaired_as_it_was_made(tmp_path: Path) -> None:
    """Its replies were read, not decoded; the second way agrees with what is left."""
    model, home = language_model(), DiskHome(tmp_path / "home", segment_tokens=64)
    live(home, model, SMALL).close()
    path = AgentMemory.export("ada", tmp_path / "ada.agentmem", home=home)
    AgentMemory.delete("ada", home)
    copy = AgentMemory.restore(path, model=model, home=home)
    before = state_of(copy)
    copy.close()
    segments(home)[2].unlink()
    with AgentMemory.resume("ada", model=model, home=home) as copy:
        report = copy.repair()
        assert report.tokens("exact") == 64 and report.ok
        assert state_of(copy)["kv"] == before["kv"]


def test_a_turn_that_saw_a_part_is_repaired_seeing_that_part(tmp_path: Path) -> None:
    """What a turn was kept from attending to by ``recall_from`` is hidden from it again."""
    model, home = language_model(), DiskHome(tmp_path, segment_tokens=64)
    memory = live(home, model, SMALL)
    memory.observe(STORY.upper(), source="web", trust="web", at=AT)
    memory.chat("How far?", max_new_tokens=12, at=AT, recall_from={"trust": ["system", "user"]})
    before = state_of(memory)
    memory.close()
    for path in segments(home):
        path.unlink()
    with AgentMemory.resume("ada", model=model, home=home) as memory:
        assert {one.outcome for one in memory.repair().ranges} == {"exact"}
        assert state_of(memory)["kv"] == before["kv"]


def test_a_damaged_rule_state_is_made_again(tmp_path: Path) -> None:
    """InfLLM's received attention: running the turn again gives the row that was committed."""
    model, home = language_model(), DiskHome(tmp_path, segment_tokens=64)
    memory = live(home, model, INFLLM)
    index = memory._store._index  # type: ignore[attr-defined]
    (good,) = index.execute("SELECT * FROM rule_states WHERE turn = 3")
    with index.transaction():
        index.execute("UPDATE rule_states SET running = zeroblob(length(running)) WHERE turn = 3")
    assert not memory.verify(deep=True).ok
    report = memory.repair()

    assert list(report.rule_states) == [3] and not report.ranges
    assert index.execute("SELECT * FROM rule_states WHERE turn = 3") == [good]
    assert memory.verify(deep=True).ok
    memory.close()


def test_nothing_is_wrong_in_memory() -> None:
    """An agent without files has nothing to repair."""
    with live(InMemoryHome(), language_model(), SMALL) as memory:
        assert not memory.repair().found

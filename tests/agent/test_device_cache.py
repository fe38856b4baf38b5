"""Blocks on the device, through whole lives: no result depends on them, and they are never out of date."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from agentmem.agent import AgentMemory
from agentmem.agent.receipts import as_json
from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.errors import ConfigError, DamagedError
from agentmem.store import DiskHome
from agentmem.store.base import Home
from support.hot_life import AT, WHOLE, HotLife, held_and_wrong, model_with, share_of
from support.tiny_language_model import SMALL

PLENTY = 1 << 20
SCARCE = 24 << 10
"""Bytes for fewer blocks than one selection has candidates."""
INFLLM = SMALL.changed(selector="infllm", positions="infllm", dense_tokens=24, reselect_every=4)
LIVES = {
    "scarce": (SCARCE, SMALL, WHOLE[:15]),
    "plenty": (PLENTY, SMALL, WHOLE),
    "every block": (PLENTY, SMALL.changed(selector="exact"), WHOLE[:10]),
    "int8": (PLENTY, SMALL.changed(kv_dtype="int8"), WHOLE[:10]),
    "infllm": (SCARCE, INFLLM, WHOLE[:10]),
}


def opened(model: LanguageModel, home: Home, config: MemoryConfig = SMALL, name: str = "ada") -> AgentMemory:
    return AgentMemory.resume(name, model=model, home=home, config=config)


@pytest.mark.parametrize("name", LIVES)
def test_a_life_is_the_same_with_and_without_it(name: str, tmp_path: Path) -> None:
    """Ids, logits, states, blocks, keys and values of every step, bit for bit; and nothing resident is out of date."""
    budget, config, steps = LIVES[name]
    model, cached_model = model_with(0), model_with(budget)
    opened(model, DiskHome(tmp_path / "plain"), config).close()
    shutil.copytree(tmp_path / "plain", tmp_path / "cached")  # the same birth, so the same ids of states
    plain = HotLife(opened(model, DiskHome(tmp_path / "plain"), config))
    cached = HotLife(opened(cached_model, DiskHome(tmp_path / "cached"), config))
    for step in steps:
        plain.step(step)
        cached.step(step)
        assert cached.told[-1] == plain.told[-1]
        assert held_and_wrong(cached.memory)[1] == [], step
        assert 0 <= cached_model.device_cache.device_bytes <= budget

    assert {None} == set(plain.uses)
    assert sum(use.hits for use in cached.uses if use) > 0


def lived(memory: AgentMemory) -> HotLife:
    """Some turns, the first of which have left the window; blocks of them are resident."""
    life = HotLife(memory)
    for step in ("hello", "story", "question", "shout", "answer", "again"):
        life.step(step)
    assert held_and_wrong(memory)[0] > 0
    return life


def test_the_receipt_says_what_was_found(tmp_path: Path) -> None:
    """Hits, misses and bytes of each reply, in JSON too; asked again from the store they are the same."""
    life = lived(opened(model_with(PLENTY), DiskHome(tmp_path)))
    reply = life.memory.chat("And once more?", max_new_tokens=8, at=AT)
    use = reply.receipt.device_cache
    assert use is not None and use.hits > 0 and 0 < use.hit_rate < 1
    assert 0 == use.bytes_copied  # host and device are one here

    shown = as_json(reply)["receipt"]["device_cache"]
    assert {"hits": use.hits, "misses": use.misses, "bytes_copied": 0} == shown
    head = life.memory._store.head
    assert head is not None and shown == head.receipt["device_cache"]


def test_blocks_stay_from_turn_to_turn(tmp_path: Path) -> None:
    """Where there is room for all of it, a block is read once: a turn misses only what grew into reach since."""
    life = lived(opened(model_with(PLENTY), DiskHome(tmp_path), SMALL.changed(selector="exact")))
    life.step("again")
    life.step("again")
    use = life.uses[-1]
    assert use is not None and use.hit_rate > 0.9


def test_without_a_budget_there_is_nothing(tmp_path: Path) -> None:
    """0 bytes, and the default on a CPU: no slab, no figures in the receipt or the store."""
    for number, budget in enumerate((0, None)):
        life = HotLife(opened(model_with(budget), DiskHome(tmp_path / str(number))))
        for step in ("hello", "story", "question"):
            life.step(step)
        assert {None} == set(life.uses) and share_of(life.memory) is None
        assert 0 == life.memory.language_model.device_cache.device_bytes
        head = life.memory._store.head
        assert head is not None and "device_cache" not in head.receipt


def test_forgotten_blocks_leave_the_device(tmp_path: Path) -> None:
    """At once, not at the next turn: nothing is held, and every byte that was is overwritten."""
    life = lived(opened(model_with(PLENTY), DiskHome(tmp_path)))
    share = share_of(life.memory)
    assert share is not None and share.slab is not None
    life.memory.forget(turn=life.memory.history()[1].turn)

    for layer, residency in share.slab.resident.items():
        assert 0 == len(residency)
        places = share.slab.places[layer]
        used = residency._last_use > 0
        assert used.any() and not places[used].any()


@pytest.mark.parametrize("verb", ["expire", "repair", "rebuild"])
def test_verbs_that_alter_blocks_drop_them(verb: str, tmp_path: Path) -> None:
    """What retention, repair and a rebuild leave behind is read anew."""
    life = lived(opened(model_with(PLENTY), DiskHome(tmp_path)))
    life.step(verb)
    share = share_of(life.memory)
    assert share is not None and share.slab is not None
    assert all(not len(residency) for residency in share.slab.resident.values())


def test_agents_share_the_budget_and_nothing_else(tmp_path: Path) -> None:
    """Several agents of one model, turn about: what each says alone, within one budget; one that goes makes room."""
    home, alone = DiskHome(tmp_path / "together"), model_with(0)
    model, steps = model_with(PLENTY // 4), ("hello", "story", "question", "answer")
    lives = [HotLife(opened(model, home, name=name)) for name in ("ada", "bob", "eve")]
    for step in steps:
        for life in lives:
            life.step(step)
            assert held_and_wrong(life.memory)[1] == []
            assert model.device_cache.device_bytes <= PLENTY // 4
    single = HotLife(opened(alone, DiskHome(tmp_path / "alone")))
    for step in steps:
        single.step(step)
    assert all(without_states(life) == without_states(single) for life in lives)

    share = share_of(lives[0].memory)
    assert share is not None and share.slab is not None
    slab, number = share.slab, share._number
    del share
    lives[0].memory.close()
    lives[1].step("again")
    assert not any((residency.held >> 37 == number).any() for residency in slab.resident.values())


def without_states(life: HotLife) -> list[object]:
    """What a life told, less the ids of states: they name the agent."""
    return [
        (told[0], told[1][:3] if isinstance(told[1], tuple) else told[1], *told[2:]) for told in life.told
    ]


def test_a_new_budget_never_adds_to_the_old_one(tmp_path: Path) -> None:
    """It counts from the next turn on, also while an agent is open, and while a turn still uses the old slab."""
    model = model_with(PLENTY)
    life = lived(opened(model, DiskHome(tmp_path)))
    pieces = life.memory.stream("Tell me more.", max_new_tokens=8, at=AT)
    next(iter(pieces))
    other = HotLife(opened(model, DiskHome(tmp_path), name="bob"))
    model.device_cache.set_budget(SCARCE)
    other.step("hello")
    assert 0 == model.device_cache.device_bytes  # the stream still uses the old one
    assert pieces.read().receipt.device_cache is not None
    life.step("again")
    assert 0 < model.device_cache.device_bytes <= SCARCE
    model.device_cache.set_budget(0)
    life.step("again")
    assert life.uses[-1] is None

    with pytest.raises(ConfigError, match="-1 bytes"):
        model.device_cache.set_budget(-1)


def test_agents_with_other_blocks_read_past_it(tmp_path: Path) -> None:
    """One slab serves one block length, that of who came first, until nobody uses it."""
    model, home = model_with(PLENTY), DiskHome(tmp_path)
    first = lived(opened(model, home))
    other = HotLife(opened(model, home, SMALL.changed(block_tokens=4), name="bob"))
    for step in ("hello", "story", "question"):
        other.step(step)
    assert {None} == set(other.uses)
    first.memory.close()
    other.step("answer")
    assert other.uses[-1] is not None


def damage_keys(segment: Path, token: int) -> None:
    """Change one byte of the first layer's keys of a token."""
    with segment.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        facts = json.loads(file.read(size))["layers.0.keys"]
        at = 8 + size + facts["data_offsets"][0] + token * facts["shape"][2] * 4
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def test_a_resident_block_is_not_read_again(tmp_path: Path) -> None:
    """Damage that a file takes later is met where it is read: by an agent with no cache, and by a new opening."""
    config = SMALL.changed(selector="exact")
    model = model_with(PLENTY)
    life = lived(opened(model, DiskHome(tmp_path), config))
    before = life.say("What is my dog called?", remember=False)
    (segment,) = (tmp_path / "agents").rglob("kv/000000.safetensors")
    damage_keys(segment, SMALL.sink_tokens + 8 * SMALL.block_tokens)
    assert before == life.say("What is my dog called?", remember=False)
    life.memory.close()
    with opened(model, DiskHome(tmp_path), config) as memory, pytest.raises(DamagedError):
        HotLife(memory).say("What is my dog called?")

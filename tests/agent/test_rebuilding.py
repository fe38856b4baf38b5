"""Forgetting without a trace: what is left after a rebuild is, to the bit, an agent that never heard it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentmem.agent import AgentMemory
from agentmem.agent.archive import export, restore
from agentmem.config import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.errors import InputError, StateForgottenError
from agentmem.store import DiskHome, InMemoryHome
from agentmem.store.base import Home
from support.agent_state import state_of
from support.listening import logits_of
from support.tiny_language_model import SMALL, language_model

AT = "2026-01-02T03:04:05+00:00"
FILLER = "The quick brown fox jumps over the lazy dog. How far is it? About 12 km, and back again. "
INFLLM = SMALL.changed(selector="infllm", positions="infllm", dense_tokens=24, reselect_every=0)


@pytest.fixture(params=["disk", "memory"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """A home on disk and one in memory."""
    return (
        DiskHome(tmp_path, segment_tokens=64, digest_blocks=8) if request.param == "disk" else InMemoryHome()
    )


@pytest.fixture
def model() -> LanguageModel:
    """The shared tiny model."""
    return language_model()


STEPS: dict[str, Any] = {
    "hello": lambda m: m.append([{"role": "user", "content": "Hello, I am Ann."}], at=AT),
    "answer": lambda m: m.append([{"role": "assistant", "content": "Thank you very much indeed."}], at=AT),
    "secret": lambda m: m.append(
        [{"role": "user", "content": "The secret is zanzibar, and nobody knows."}], at=AT
    ),
    "dog": lambda m: m.observe("My dog is called Biscuit.", source="dog", at=AT),
    "filler": lambda m: m.observe(FILLER * 2, source="filler", at=AT),
    "note": lambda m: m.observe("Zanzibar again, in a note.", source="note", at=AT),
    "more": lambda m: m.append([{"role": "user", "content": "And how far is it?"}], at=AT),
    "end": lambda m: m.append([{"role": "assistant", "content": "About 12 km."}], at=AT),
}


def life(home: Home, model: LanguageModel, config: MemoryConfig, steps: list[str], name: str) -> AgentMemory:
    """An agent that was told these things, nothing of which was sampled."""
    memory = AgentMemory.resume(name, model=model, home=home, config=config)
    for step in steps:
        STEPS[step](memory)
    return memory


@pytest.mark.parametrize(
    ("config", "gone"),
    [
        (SMALL, ["secret", "note"]),
        (SMALL.changed(selector="sub-means-2"), ["hello", "secret"]),
        (INFLLM, ["secret", "note"]),
        (INFLLM, ["hello"]),
        (SMALL.changed(dense_tokens=600), ["dog", "filler"]),
        (SMALL, ["end"]),
    ],
)
def test_it_equals_an_agent_that_never_heard_it(
    home: Home, model: LanguageModel, config: MemoryConfig, gone: list[str]
) -> None:
    """Ids, K/V, pending and the logits of the next reply, bit for bit; from the sinks on or from the middle."""
    steps = list(STEPS)
    memory = life(home, model, config, steps, "ada")
    ids = [memory.history()[steps.index(step)].turn for step in gone]
    for turn in ids[1:]:
        memory.forget(turn=turn)  # dropped before: a rebuild leaves these out, too
    receipt = memory.forget(turn=ids[0], mode="rebuild")
    twin = life(InMemoryHome(), model, config, [step for step in steps if step not in gone], "eve")

    assert receipt.mode == "rebuild" and receipt.erased
    assert "trace" not in receipt.residual
    found, wanted = state_of(memory), state_of(twin)
    for key in ("tokens", "ids", "pending", "kv", "log"):
        assert found[key] == wanted[key], key
    assert [turn.messages for turn in memory.history()] == [turn.messages for turn in twin.history()]
    replies = [logits_of(one, "Well?", at=AT) for one in (memory, twin)]
    assert replies[0] == replies[1]
    assert state_of(memory)["kv"] == state_of(twin)["kv"]
    assert memory.verify(deep=True).ok
    memory.close()
    with AgentMemory.resume("ada", model=model, home=home) as memory:
        assert memory.verify(deep=True).ok
        assert logits_of(memory, "And then?", at=AT) == logits_of(twin, "And then?", at=AT)


def test_what_was_sampled_is_read_like_the_rest(home: Home, model: LanguageModel, tmp_path: Path) -> None:
    """After the first turn is gone everything is read again: equal to the import of the remaining transcript."""
    memory = AgentMemory.resume("ada", model=model, home=home, config=SMALL)
    for text in ("The secret is zanzibar.", "My dog is called Biscuit.", FILLER, "What is my dog called?"):
        memory.chat(text, max_new_tokens=7, at=AT)  # cut: each leaves a token to the turn after it
    before = memory.history()
    first = memory._store.token_ids(0, memory.tokens_held)
    memory.forget(match="zanzibar", mode="rebuild")
    path = export(home, "ada", tmp_path / "ada.agentmem", kv=False)
    fresh = InMemoryHome()
    restore(fresh, path, "eve", model, "cpu", None)
    with AgentMemory.resume("eve", model=model, home=fresh) as eve:
        found, wanted = state_of(memory), state_of(eve)
        for key in ("tokens", "ids", "pending", "kv", "log"):
            assert found[key] == wanted[key], key
        assert logits_of(memory, "So?", at=AT) == logits_of(eve, "So?", at=AT)
    last = memory._store.upkeep.ids_of(before[-1].turn)
    assert first[-len(last) :] == last
    text = memory.tokenizer.decode(found["ids"])
    assert text.startswith("<|im_start|>user\nMy dog is called Biscuit.<|im_end|>\n<|im_start|>assistant\n")
    assert text.count("<|im_start|>") == 6


def test_states_and_numbers_after_a_rebuild(home: Home, model: LanguageModel) -> None:
    """Earlier states are as they were, later ones have new ids that the old ones lead to, forgotten ones are an error."""
    memory = life(home, model, SMALL, list(STEPS), "ada")
    before = memory.history()
    receipt = memory.forget(match="secret", mode="rebuild")
    after = {turn.turn: turn for turn in memory.history()}

    assert [turn.turn for turn in before if turn.turn not in after] == list(receipt.turns) == [3]
    assert all(after[turn.turn].state_id == turn.state_id for turn in before[:2])
    assert all(after[turn.turn].state_id == receipt.states[turn.state_id] for turn in before[3:])
    assert all(after[turn.turn].state_id != turn.state_id for turn in before[3:])
    with pytest.raises(StateForgottenError):
        memory.rewind(before[2].state_id)
    memory.forget(source="note", mode="rebuild")
    for turn in (before[4], before[-1], before[0]):
        memory.rewind(turn.state_id)
        assert memory.history()[-1].turn == turn.turn
    with pytest.raises(StateForgottenError):
        memory.history(at=receipt.states[before[5].state_id])
    memory.close()
    with AgentMemory.resume("ada", model=model, home=home) as memory:
        memory.rewind(before[-1].state_id)
        assert memory.checkpoint() == memory.history()[-1].state_id


def test_other_branches_are_rebuilt_too(home: Home, model: LanguageModel) -> None:
    """A branch the head does not stand on is read again if it held the turn, and can be returned to."""
    memory = life(home, model, SMALL, ["hello", "secret", "dog"], "ada")
    fork_point, other = memory.history()[1].state_id, memory.checkpoint()
    memory.rewind(fork_point)
    STEPS["filler"](memory)
    STEPS["more"](memory)
    STEPS["end"](memory)
    receipt = memory.forget(match="zanzibar", mode="rebuild")
    head = life(InMemoryHome(), model, SMALL, ["hello", "filler", "more", "end"], "eve")
    side = life(InMemoryHome(), model, SMALL, ["hello", "dog"], "eve")

    assert len(receipt.states) == 4
    assert logits_of(memory, "Well?", remember=False) == logits_of(head, "Well?", remember=False)
    assert state_of(memory)["kv"] == state_of(head)["kv"]
    memory.rewind(other)
    assert state_of(memory)["kv"] == state_of(side)["kv"]
    assert logits_of(memory, "Well?") == logits_of(side, "Well?")
    assert memory.verify(deep=True).ok


def test_what_is_in_quarantine_is_not_read_from(home: Home, model: LanguageModel) -> None:
    """The turns that are read again attend to it no more than new ones do."""
    memory = life(home, model, SMALL, ["hello", "secret"], "ada")
    twin = life(InMemoryHome(), model, SMALL, ["hello"], "eve")
    for one in (memory, twin):
        STEPS["dog"](one)
        one.quarantine("dog")
        STEPS["filler"](one)
        STEPS["more"](one)
    memory.forget(match="zanzibar", mode="rebuild")
    assert state_of(memory)["ids"] == state_of(twin)["ids"]
    assert state_of(memory)["kv"] == state_of(twin)["kv"]
    assert logits_of(memory, "Well?", at=AT) == logits_of(twin, "Well?", at=AT)


def test_a_dry_run_and_a_failure_change_nothing(
    home: Home, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planned, then broken off in the middle: state, files and the next reply are as before."""
    memory = life(home, model, SMALL, list(STEPS), "ada")
    before = state_of(memory)
    planned = memory.forget(match="zanzibar", mode="rebuild", dry_run=True)
    assert planned.dry_run and planned.tokens_prefilled > 0 and list(planned.turns) == [3, 6]
    assert state_of(memory) == before
    told: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        if len(told) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        memory.forget(match="zanzibar", mode="rebuild", on_progress=stop)
    assert len(told) == 3 and told[-1][0] < told[-1][1] == planned.tokens_prefilled
    after = state_of(memory)
    before.pop("digests"), after.pop("digests")  # a cache
    assert after == before
    assert memory.verify(deep=True).ok
    memory.close()
    with AgentMemory.resume("ada", model=model, home=home) as memory:
        now = state_of(memory)
        now.pop("digests")
        assert now == before
        memory.forget(match="zanzibar", mode="rebuild")
        assert memory.search("zanzibar") == [] and memory.verify(deep=True).ok


def test_everything_can_go(home: Home, model: LanguageModel) -> None:
    """All turns of all branches, without reading anything; the agent goes on empty, and says what was dropped."""
    memory = life(home, model, SMALL, ["hello", "secret", "dog"], "ada")
    memory.rewind(memory.history()[0].state_id)
    STEPS["filler"](memory)
    states = [turn.state_id for turn in memory.history()]
    receipt = memory.forget(everything=True)
    assert (receipt.turns, receipt.tokens_prefilled, memory.tokens_held) == ([1, 2, 3, 4], 0, 0)
    assert memory.history() == [] and memory.checkpoint() is None
    with pytest.raises(StateForgottenError):
        memory.rewind(states[0])
    (row,) = memory.audit()
    assert (row.what, row.why, list(row.turns), row.tokens) == (
        "rebuild",
        "everything",
        [1, 2, 3, 4],
        receipt.tokens,
    )
    fresh = life(InMemoryHome(), model, SMALL, ["dog"], "eve")
    STEPS["dog"](memory)
    assert state_of(memory)["kv"] == state_of(fresh)["kv"]
    with pytest.raises(InputError, match="everything"):
        memory.forget(everything=True, turn=1)


def test_a_system_prompt_moves_along(home: Home, model: LanguageModel) -> None:
    """Its place is known after the turns before it went; forgotten, it is read again at the next opening."""
    memory = life(home, model, SMALL, ["hello", "secret"], "ada")
    memory.close()
    prompt = "You are kind, and know the fox and the dog very well indeed."
    with AgentMemory.resume("ada", model=model, home=home, system=prompt) as memory:
        STEPS["dog"](memory)
        memory.forget(match="zanzibar", mode="rebuild")
    with AgentMemory.resume("ada", model=model, home=home, system=prompt) as memory:
        assert memory.resumed.tokens_prefilled == 0
        memory.forget(match="kind, and know", mode="rebuild")
    with AgentMemory.resume("ada", model=model, home=home, system=prompt) as memory:
        assert memory.resumed.tokens_prefilled > 0

"""Changing the past: rewind, fork, forget; and what explain says afterwards."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from agentmem.agent import AgentMemory, Reply
from agentmem.engine.model import LanguageModel
from agentmem.errors import AgentExistsError, RebuildNeededError, StateForgottenError, StateNotFoundError
from agentmem.store import DiskHome, InMemoryHome
from agentmem.store.base import Home
from support.agent_state import state_of
from support.scripted import Scripted
from support.tiny_language_model import SMALL, language_model

AT = "2026-01-02T03:04:05+00:00"
FILLER = "The quick brown fox jumps over the lazy dog. How far is it? About 12 km, and back again. " * 2


@pytest.fixture(params=["disk", "memory"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """A home on disk and one in memory."""
    return DiskHome(tmp_path) if request.param == "disk" else InMemoryHome()


@pytest.fixture
def model() -> LanguageModel:
    """The shared tiny model."""
    return language_model()


def opened(home: Home, model: LanguageModel, name: str = "ada", **options: Any) -> AgentMemory:
    """The agent."""
    return AgentMemory.resume(name, model=model, home=home, **{"config": SMALL, **options})


def say(memory: AgentMemory, text: str, answer: str = "Hello there!", at: str = AT) -> Reply:
    """A turn whose reply is known beforehand."""
    scripted = Scripted(memory.tokenizer, answer)
    return memory.generate([{"role": "user", "content": text}], logits_processor=[scripted], at=at)


@pytest.fixture
def memory(home: Home, model: LanguageModel) -> AgentMemory:
    """Turns 1 to 5: opening words, a secret, a note, filler that pushes them out of the window, a question."""
    memory = opened(home, model)
    say(memory, "Hello, I am Ann, how are you? Please answer.", "Thank you very much indeed.")
    say(memory, "The secret is zanzibar, and nobody knows.", at="2026-01-03T00:00:00+00:00")
    memory.observe("My dog is called Biscuit.", source="dog", at="2026-01-04T00:00:00+00:00")
    memory.observe(FILLER, source="filler", at="2026-01-05T00:00:00+00:00")
    memory.chat("How far is it?", max_new_tokens=10, at="2026-01-06T00:00:00+00:00")
    return memory


def text_of(memory: AgentMemory) -> str:
    """What the living tokens of the log say."""
    ids = memory._store.token_ids(0, memory.tokens_held)
    return str(memory.tokenizer.decode([token for token in ids if token >= 0]))


# -- rewind and fork -----------------------------------------------------------------------------------


def test_rewinding_goes_back_and_forth(memory: AgentMemory) -> None:
    """An earlier state, the empty one, and the later one again by its id: each as it was."""
    now = state_of(memory)
    states = [turn.state_id for turn in memory.history()]
    memory.rewind(states[1])
    assert (memory.checkpoint(), len(memory.history())) == (states[1], 2)
    assert "Biscuit" not in text_of(memory)
    memory.rewind(None)
    assert (memory.checkpoint(), memory.tokens_held) == (None, 0)
    memory.rewind(states[-1])
    now.pop("digests")  # a cache: counted as not there until it is needed again
    assert {key: value for key, value in state_of(memory).items() if key != "digests"} == now
    with pytest.raises(StateNotFoundError):
        memory.rewind("0" * 32)


def test_a_rewound_agent_goes_on_as_one_that_never_went_further(home: Home, model: LanguageModel) -> None:
    """Rewound past a long turn and its digests, and resumed: the next replies are the same bits."""
    straight, rewound = opened(home, model, "straight"), opened(home, model, "rewound")
    for one in (straight, rewound):
        say(one, FILLER)
    state = rewound.checkpoint()
    say(rewound, FILLER.upper(), "And again, and again, thank you.")
    rewound.chat("How far?", max_new_tokens=10)
    rewound.rewind(state)
    rewound.close()
    rewound = opened(home, model, "rewound")
    for _ in range(3):
        replies = [one.chat("How far is it?", max_new_tokens=12, at=AT) for one in (straight, rewound)]
        assert replies[0].token_ids == replies[1].token_ids
        assert [b.share for b in replies[0].receipt.blocks] == [b.share for b in replies[1].receipt.blocks]
    assert state_of(straight)["kv"] == state_of(rewound)["kv"]
    assert state_of(straight)["digests"] == state_of(rewound)["digests"]


def test_a_fork_goes_its_own_way(memory: AgentMemory, home: Home) -> None:
    """It begins as the parent to the bit; what either then does, the other never sees."""
    fork = memory.fork("eve")
    before = state_of(memory)
    assert state_of(fork) == before
    first = fork.chat("And again?", max_new_tokens=10, at=AT)
    fork.forget(source="dog")
    assert state_of(memory) == before
    assert memory.chat("And again?", max_new_tokens=10, at=AT).token_ids == first.token_ids
    memory.rewind(None)
    assert len(fork.history()) == 6
    assert {info.agent_id for info in AgentMemory.list(home)} == {"ada", "eve"}
    with pytest.raises(AgentExistsError):
        memory.fork("eve")


def test_a_fork_outlives_its_parent(memory: AgentMemory, home: Home, model: LanguageModel) -> None:
    """The parent deleted: the fork opens, verifies and answers."""
    memory.fork("eve").close()
    memory.close()
    AgentMemory.delete("ada", home)
    with AgentMemory.resume("eve", model=model, home=home) as eve:
        assert eve.verify(deep=True).ok
        assert eve.chat("And again?", max_new_tokens=10).receipt.blocks


# -- forget --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        ({"turn": 2}, [2]),
        ({"match": "ZANZIBAR"}, [2]),
        ({"match": "biscuit"}, [3]),
        ({"source": "dog"}, [3]),
        ({"after": "2026-01-05T12:00:00+00:00"}, [5]),
        ({"after": "2026-01-02T12:00:00+00:00", "before": "2026-01-03T12:00:00+00:00"}, [2]),
        ({"after": datetime.fromisoformat("2026-01-02T12:00:00+00:00"), "match": "fox"}, [4]),
        ({"match": "walrus"}, []),
        ({"match": "role"}, []),
        ({"match": "assistant"}, []),
    ],
)
def test_forgetting_finds_what_fits_every_condition(
    memory: AgentMemory, options: Any, gone: list[int]
) -> None:
    """First said, then done: the same turns and tokens; a dry run changes nothing."""
    ids = [turn.turn for turn in memory.history()]
    before = state_of(memory)
    planned = memory.forget(**options, dry_run=True)
    assert state_of(memory) == before
    done = memory.forget(**options)

    assert planned.dry_run and not done.dry_run
    assert [ids.index(turn) + 1 for turn in done.turns] == gone
    assert (planned.turns, planned.tokens) == (done.turns, done.tokens)
    assert done.tokens == sum(turn.tokens for turn in memory.history() if turn.turn in done.turns)
    assert [turn.turn for turn in memory.history() if turn.forgotten] == list(done.turns)


def test_forgotten_text_is_nowhere(
    memory: AgentMemory, tmp_path: Path, model: LanguageModel, home: Home
) -> None:
    """Not in history, search, explain, the log, an export, or any file of the home."""
    secret = memory.search("zanzibar")[0].turn
    memory.forget(turn=secret)
    assert memory.search("zanzibar") == []
    assert "zanzibar" not in text_of(memory)
    assert "zanzibar" not in str(memory.history()) + str(memory.explain())
    assert memory.verify(deep=True).ok
    reply = memory.chat("What is the secret?", max_new_tokens=10)
    assert all("zanzibar" not in block.text for block in reply.receipt.blocks)
    path = AgentMemory.export("ada", tmp_path / "ada.agentmem", home=home)
    memory.close()
    assert path.is_file()
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not [file for file in files if b"zanzibar" in file.read_bytes()]
    with AgentMemory.restore(path, agent_id="eve", model=model, home=home) as eve:
        assert "zanzibar" not in text_of(eve) + str(eve.history())


def test_what_lies_in_the_sinks_needs_a_rebuild(memory: AgentMemory) -> None:
    """RebuildNeededError, also when other turns could be dropped: nothing was."""
    before = state_of(memory)
    first = memory.history()[0].turn
    for options in ({"turn": first}, {"match": "e"}, {"before": "2027-01-01"}):
        for dry_run in (True, False):
            with pytest.raises(RebuildNeededError, match="sinks"):
                memory.forget(**options, dry_run=dry_run)
    assert state_of(memory) == before


def test_the_talk_goes_on_behind_a_forgotten_end(
    memory: AgentMemory, home: Home, model: LanguageModel
) -> None:
    """The newest turns forgotten: the next message follows the newest living one, in the template's words."""
    memory.forget(after="2026-01-04T12:00:00+00:00")
    memory.close()
    memory = opened(home, model)
    memory.observe("Good day.", at=AT)
    reply = memory.chat("Well?", max_new_tokens=1, at=AT)

    assert (
        text_of(memory)
        .removesuffix(reply.text)
        .endswith(
            "My dog is called Biscuit.\n\nGood day.<|im_end|>\n<|im_start|>user\nWell?<|im_end|>\n<|im_start|>assistant\n"
        )
    )
    memory.forget(source="dog")
    memory.rewind(memory.checkpoint())


def test_a_system_prompt_survives_a_forgotten_head(home: Home, model: LanguageModel) -> None:
    """It is not read again because the newest turn was forgotten; forgotten itself, it is."""
    memory = opened(home, model, system="You are kind, and know the fox and the dog very well indeed.")
    say(memory, "The secret is zanzibar.")
    memory.forget(match="zanzibar")
    memory.close()
    kind = "You are kind, and know the fox and the dog very well indeed."
    with opened(home, model, system=kind) as memory:
        assert memory.resumed.tokens_prefilled == 0
    with opened(home, model, system="You are stern.") as memory:
        assert memory.resumed.tokens_prefilled > 0
        memory.forget(match="stern")
    with opened(home, model, system=kind) as memory:
        assert memory.resumed.tokens_prefilled == 0


def test_everything_can_be_forgotten_without_sinks(home: Home, model: LanguageModel) -> None:
    """With no sinks every turn can go; the next one begins a conversation anew."""
    memory = opened(home, model, config=SMALL.changed(sink_tokens=0))
    say(memory, FILLER)
    say(memory, "The secret is zanzibar.")
    memory.forget(before="2027-01-01")
    assert text_of(memory) == ""
    reply = memory.chat("Well?", max_new_tokens=6, at=AT)
    fresh = opened(InMemoryHome(), model, config=SMALL.changed(sink_tokens=0))

    assert text_of(memory).startswith("<|im_start|>user\nWell?<|im_end|>\n<|im_start|>assistant\n")
    assert reply.token_ids == fresh.chat("Well?", max_new_tokens=6, at=AT).token_ids


def test_a_forgotten_state_cannot_be_returned_to(memory: AgentMemory) -> None:
    """StateForgottenError; its later states can."""
    states = {turn.turn: turn.state_id for turn in memory.history()}
    (secret,) = memory.forget(match="zanzibar").turns
    with pytest.raises(StateForgottenError):
        memory.rewind(states[secret])
    memory.rewind(states[secret + 1])


def test_a_text_forgotten_may_be_observed_anew(memory: AgentMemory) -> None:
    """Under the same source: it is read again."""
    memory.forget(source="dog")
    receipt = memory.observe("My dog is called Rex.", source="dog")

    assert receipt.tokens_prefilled > 0
    assert memory.search("Rex")


# -- explain -------------------------------------------------------------------------------------------


def test_explain_names_what_fed_the_last_reply(memory: AgentMemory) -> None:
    """Blocks with their text, turn and day, largest share first; the shares are parts of one whole."""
    found = memory.explain()
    turns = {turn.turn: turn for turn in memory.history()}
    ids = memory._store.token_ids(0, memory.tokens_held)

    assert found.question == "How far is it?"
    assert found.answer == memory.history()[-1].messages[-1]["content"]
    assert 0 < found.recalled_mass < 1
    shares = [block.share for block in found.blocks]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 1 + 1e-9
    for block in found.blocks:
        assert block.text == memory.tokenizer.decode(ids[block.start : block.stop])
        assert block.created_at == turns[block.turn].created_at
    assert f"{found.blocks[0].share:6.1%}" in str(found)


def test_explain_leaves_forgotten_text_out(memory: AgentMemory) -> None:
    """A block that is half forgotten shows its living half; one that is wholly forgotten is not there."""
    before = {block.start: block for block in memory.explain().blocks}
    (turn,) = memory.forget(source="filler").turns
    (dead,) = memory._store.log.dead
    after = {block.start: block for block in memory.explain().blocks}

    assert set(after) == {start for start in before if not (dead[0] <= start and start + 8 <= dead[1])}
    assert len(after) < len(before)
    ids = memory._store.token_ids(0, memory.tokens_held)
    for start, block in after.items():
        assert block.turn != turn
        assert block.text == memory.tokenizer.decode([t for t in ids[start : block.stop] if t >= 0])


def test_explain_is_about_the_last_answer_of_the_model(home: Home, model: LanguageModel) -> None:
    """Empty before one; messages written by append or observe are no answers; a rewind brings back the older one."""
    memory = opened(home, model)
    assert memory.explain().turn is None
    assert "recent window alone" in str(memory.explain())
    memory.append([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there!"}])
    assert memory.explain().turn is None
    say(memory, "First?")
    state = memory.checkpoint()
    say(memory, "Second?")
    memory.observe("A note.")
    assert memory.explain().question == "Second?"
    memory.rewind(state)
    assert memory.explain().question == "First?"

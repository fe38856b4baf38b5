"""Retention: what has expired goes, then what is more than a quota; what is pinned stays, and the audit says it all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentmem.agent import AgentMemory
from agentmem.engine.model import LanguageModel
from agentmem.errors import InputError, StateForgottenError, StateNotFoundError
from agentmem.store import DiskHome, InMemoryHome
from agentmem.store.base import Home
from support.agent_state import state_of
from support.tiny_language_model import SMALL, language_model

AT = "2026-01-02T03:04:05+00:00"
LATER, LATEST = "2026-06-01T00:00:00+00:00", "2027-06-01T00:00:00+00:00"


@pytest.fixture(params=["disk", "memory"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """A home on disk and one in memory."""
    return DiskHome(tmp_path) if request.param == "disk" else InMemoryHome()


@pytest.fixture
def model() -> LanguageModel:
    """The shared tiny model."""
    return language_model()


@pytest.fixture
def memory(home: Home, model: LanguageModel) -> AgentMemory:
    """Six turns: in the sinks, one that never ends, then four that end at different times, said in each way."""
    memory = AgentMemory.resume("ada", model=model, home=home, config=SMALL)
    memory.append([{"role": "user", "content": "Hello, I am Ann, how are you?"}], at=AT, expires_at=LATER)
    memory.observe("My dog is called Biscuit.", source="dog", at=AT)
    memory.observe("Kept for a while.", source="while", at=AT, expires_at="2026-05-01")
    memory.append([{"role": "user", "content": "Kept longer."}], at=AT, expires_at=LATEST)
    memory.chat("And this?", max_new_tokens=4, at=AT, expires_at=LATER)
    memory.generate([{"role": "user", "content": "And that?"}], max_new_tokens=4, at=AT, expires_at=LATER)
    return memory


def sizes(memory: AgentMemory) -> dict[int, int]:
    """Turn -> tokens, of living ones."""
    return {turn.turn: turn.tokens for turn in memory.history() if not turn.forgotten}


def test_what_has_expired_goes(memory: AgentMemory, home: Home, model: LanguageModel) -> None:
    """Planned, then done; what is in the sinks waits for a rebuild, what is pinned stays."""
    ends = {turn.turn: turn.expires_at for turn in memory.history()}
    assert {turn: end and end[:10] for turn, end in ends.items()} == {
        1: "2026-06-01",
        2: None,
        3: "2026-05-01",
        4: "2027-06-01",
        5: "2026-06-01",
        6: "2026-06-01",
    }
    memory.pin(5)
    before, held = state_of(memory), sizes(memory)
    assert memory.apply_retention(at="2026-04-01").expired == []
    planned = memory.apply_retention(at="2026-07-01", dry_run=True)
    assert state_of(memory) == before and memory.audit() == []
    done = memory.apply_retention(at="2026-07-01")

    assert (done.expired, done.over_quota, done.needs_rebuild, done.pinned) == ([3, 6], [], [1], [5])
    assert (planned.expired, planned.tokens, planned.tokens_left) == (
        done.expired,
        done.tokens,
        done.tokens_left,
    )
    assert done.tokens == held[3] + held[6] and done.tokens_left == sum(sizes(memory).values())
    assert sorted(sizes(memory)) == [1, 2, 4, 5]
    assert memory.search("while") == []
    memory.close()
    with AgentMemory.resume("ada", model=model, home=home) as again:
        assert [turn.turn for turn in again.history() if turn.pinned] == [5]
        rebuilt = again.apply_retention(at="2026-07-01", mode="rebuild")
        assert (rebuilt.expired, rebuilt.mode) == ([1], "rebuild")
        assert sorted(sizes(again)) == [2, 4, 5]
        again.pin(5, pinned=False)
        assert again.apply_retention(at="2026-07-01", mode="rebuild").expired == [5]
        rows = [(row.what, row.why, list(row.turns)) for row in again.audit()]
        assert rows == [("retention", "expired", turns) for turns in ([3, 6], [1], [5])]
        assert "while" not in str(again.audit())


def test_the_clock_is_used_without_a_time(memory: AgentMemory) -> None:
    """What ended in the past is gone, what ends in a hundred years is not."""
    memory.append([{"role": "user", "content": "Old."}], expires_at="2001-01-01")
    memory.append([{"role": "user", "content": "Far."}], expires_at="2126-01-01")
    assert 7 in memory.apply_retention().expired and 8 in sizes(memory)


@pytest.mark.parametrize("unit", ["tokens", "bytes"])
def test_a_quota_drops_the_oldest(memory: AgentMemory, unit: str) -> None:
    """As few as fit it, oldest first; neither what is pinned nor the sinks; nothing when it fits."""
    held, per_token = sizes(memory), memory._store.log.layout.bytes_per_token
    total = sum(held.values())
    memory.pin(3)

    def quota(tokens: int) -> dict[str, Any]:
        return {"max_tokens": tokens} if unit == "tokens" else {"max_bytes": tokens * per_token + 1}

    early = "2026-02-01"
    assert memory.apply_retention(**quota(total), at=early).over_quota == []
    done = memory.apply_retention(**quota(total - 1), at=early)
    assert (done.over_quota, done.tokens_left) == ([2], total - held[2])
    done = memory.apply_retention(**quota(total - held[2] - held[4] - 1), at=early)
    assert done.over_quota == [4, 5]
    done = memory.apply_retention(**quota(0), at=early)
    assert done.over_quota == [6] and sorted(sizes(memory)) == [1, 3]
    done = memory.apply_retention(**quota(0), at=early, mode="rebuild")
    assert done.over_quota == [1] and sorted(sizes(memory)) == [3]
    assert memory.tokens_held == done.tokens_left
    assert memory.verify(deep=True).ok


def test_the_least_recalled_go_first(home: Home, model: LanguageModel) -> None:
    """By what the receipts of later replies say; ties go to the older one."""
    memory = AgentMemory.resume("ada", model=model, home=home, config=SMALL)
    for number in range(12):
        memory.observe(
            f"Note {number}: the quick brown fox jumps over dog {number * 7}.", source=f"n{number}", at=AT
        )
    memory.chat("Which fox jumps over dog 49?", max_new_tokens=4, at=AT)
    blocks = memory.explain().blocks
    assert blocks
    spared = {block.turn for block in blocks}
    done = memory.apply_retention(max_tokens=sum(sizes(memory).values()) - 30, policy="least-recalled")

    assert done.over_quota and not spared & set(done.over_quota)
    assert done.over_quota != sorted(sizes(memory))[: len(done.over_quota)]


def test_pins_and_quotas_are_checked(memory: AgentMemory) -> None:
    """Unknown and forgotten turns, negative quotas, unknown policies and modes: refused, and nothing has changed."""
    before = state_of(memory)
    memory.forget(source="dog")
    with pytest.raises(StateForgottenError):
        memory.pin(2)
    with pytest.raises(StateNotFoundError):
        memory.pin(77)
    bad: list[dict[str, Any]] = [
        {"max_tokens": -1},
        {"max_bytes": "1"},
        {"policy": "random"},
        {"mode": "burn"},
        {"at": "soon"},
    ]
    for options in bad:
        with pytest.raises(InputError):
            memory.apply_retention(**options)
    with pytest.raises(InputError, match="tomorrow"):
        memory.observe("Hm.", expires_at="tomorrow")
    assert memory.checkpoint() == before["checkpoint"]


def test_marks_survive_a_fork_and_a_rebuild(memory: AgentMemory) -> None:
    """They belong to the turn, whose number stays."""
    memory.pin(4)
    memory.forget(turn=2, mode="rebuild")
    with memory.fork("eve") as eve:
        for one in (memory, eve):
            marks = {turn.turn: (turn.pinned, turn.expires_at) for turn in one.history()}
            assert marks[4] == (True, LATEST) and marks[6] == (False, LATER)
            assert [row.turns for row in one.audit()] == [[2]]

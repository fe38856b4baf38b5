"""Fact 2 in every mode: resumed, rewound, forked and gone on from elsewhere, a turn gives the same bits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from agentmem.agent import AgentMemory
from agentmem.config import MemoryConfig
from agentmem.memory.modes import MODES, mode
from agentmem.store import DiskHome, InMemoryHome
from agentmem.store.base import Home
from support.tiny_language_model import SMALL, language_model
from support.two_lives import STORY, kv_digest

AT = "2026-01-02T03:04:05+00:00"
_SLOW = SMALL.changed(dense_tokens=24, reselect_every=0)
CONFIGS: dict[str, MemoryConfig] = {
    **{name: mode(name, SMALL) for name in ("streaming", "lm-infinite", "window")},
    "full": mode("full", SMALL, tokens=1024),
    "position-interpolation": mode("position-interpolation", SMALL, tokens=1500, factor=2.0),
    "ntk": mode("ntk", SMALL, tokens=1500, factor=2.0),
    "infllm": _SLOW.changed(selector="infllm", positions="infllm"),
    "infllm, held": SMALL.changed(selector="infllm", positions="infllm"),
    "infllm's rule, ordered": SMALL.changed(selector="infllm"),
    "the default rule, one distance": SMALL.changed(positions="infllm"),
    "int8": SMALL.changed(kv_dtype="int8"),
    "infllm in int8": _SLOW.changed(selector="infllm", positions="infllm", kv_dtype="int8"),
}
"""Every mode, InfLLM's with blocks small enough to recall, and its two halves alone."""
Homes = Callable[[], Home]


@pytest.fixture(params=["disk", "memory"])
def homes(request: pytest.FixtureRequest, tmp_path: Path) -> Homes:
    """Empty homes of either kind."""
    numbers = iter(range(100))
    return lambda: InMemoryHome() if request.param == "memory" else DiskHome(tmp_path / str(next(numbers)))


class Life:
    """One agent; ``say`` returns a hash of a turn's logits and of all K/V behind it."""

    def __init__(self, home: Home, config: MemoryConfig, name: str = "ada") -> None:
        self.home = home
        self.memory = AgentMemory.resume(name, model=language_model(), home=home, config=config)

    def say(self, text: str, **options: Any) -> str:
        """Ask something, or with a long text read it."""
        if len(text) > 100:
            self.memory.observe(text, at=AT)
            return kv_digest(self.memory)
        logits = hashlib.sha256()

        def listen(_: Tensor, scores: Tensor) -> Tensor:
            logits.update(scores.numpy().tobytes())
            return scores

        asked = [{"role": "user", "content": text}]
        self.memory.generate(asked, logits_processor=[listen], max_new_tokens=10, at=AT, **options)
        return logits.hexdigest() + kv_digest(self.memory)

    def state(self) -> str:
        """The head's state id."""
        return self.memory.history()[-1].state_id

    def reopened(self) -> Life:
        """The same agent, closed and opened again."""
        config, name = self.memory.config, self.memory.agent_id
        self.memory.close()
        return Life(self.home, config, name)


def test_every_mode_is_tested() -> None:
    """A new mode must be named above."""
    assert set(MODES) <= set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_turns_are_the_same_bits_wherever_they_go_on_from(name: str, homes: Homes) -> None:
    """Unstopped; closed between turns; from a rewound head; in a fork; after another branch was taken and left."""
    config, words = (
        CONFIGS[name],
        (STORY, "What is my dog called?", STORY.upper(), "How far is it?", "And again?"),
    )
    one = Life(homes(), config)
    wanted = [one.say(text) for text in words]

    two, found, states = Life(homes(), config), [], []
    for text in words:
        found.append(two.say(text))
        states.append(two.state())
        two = two.reopened()
    assert found == wanted

    two.home.fork("ada", "twin")
    two.memory.rewind(states[1])
    assert [two.say(text) for text in words[2:4]] == wanted[2:4]
    two.memory.rewind(states[0])
    other = two.say("Something else, please, thank you very much indeed.")
    two.say(STORY.lower())
    two = two.reopened()
    assert two.say(words[4], after=states[3]) == wanted[4], "another branch, whose digests were dropped"
    assert other not in wanted

    twin = Life(two.home, config, "twin")
    assert twin.say("Please answer.") == one.say("Please answer.")


@pytest.mark.parametrize("name", ["infllm", "streaming"])
def test_what_is_dropped_or_forgotten_leaves_the_same_bits(name: str, homes: Homes) -> None:
    """Unremembered and stopped replies, and a forgotten turn, in an agent that stops and in one that does not."""
    lives = []
    for stops in (False, True):
        life, told = Life(homes(), CONFIGS[name]), []
        for step, text in enumerate(
            (STORY, "What is my dog called?", STORY.upper(), "How far?", "Again?", "And?")
        ):
            options: dict[str, Any] = {"remember": step != 1} if len(text) < 100 else {}
            if step == 4:
                options["stop"] = ("e", "a", "i", "o")
            told.append(life.say(text, **options))
            if step == 3:
                life.memory.forget(turn=life.memory.history()[1].turn)
            life = life.reopened() if stops else life
        lives.append(told)

    assert lives[0] == lives[1]

"""Fact 2: a resumed agent goes on bit for bit as one that never stopped, and reads nothing again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentmem.agent import AgentMemory
from agentmem.config import MemoryConfig
from agentmem.store import InMemoryHome
from agentmem.store.base import Home
from support.tiny_language_model import SMALL, language_model
from support.two_lives import LIVES, TURNS, model_of, play

MEASURED = ("states", "ids", "text", "logits", "kv", "blocks")


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[Any], list[Any]]]:
    """Each agent's turns: in this process without a stop, and in a fresh process for each turn."""
    here, there = tmp_path_factory.mktemp("homes") / "here", tmp_path_factory.mktemp("homes") / "there"
    for name, (_, config) in LIVES.items():
        AgentMemory.resume(name, model=model_of(name), home=here, config=config).close()
    shutil.copytree(here, there)
    unstopped: dict[str, list[Any]] = {}
    for name in LIVES:
        with AgentMemory.resume(name, model=model_of(name), home=here) as memory:
            unstopped[name] = [
                json.loads(json.dumps(play(memory, model_of(name), turn))) for turn in range(TURNS)
            ]
    stopped: dict[str, list[Any]] = {name: [] for name in LIVES}
    for turn in range(TURNS):
        command = [sys.executable, "-m", "support.two_lives", str(there), str(turn)]
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[1]
        )
        assert ran.returncode == 0, ran.stderr
        for name, record in json.loads(ran.stdout).items():
            stopped[name].append(record)
    return {name: (unstopped[name], stopped[name]) for name in LIVES}


@pytest.mark.parametrize("name", LIVES)
@pytest.mark.parametrize("measured", MEASURED)
def test_a_fresh_process_per_turn_changes_nothing(
    lives: dict[str, tuple[list[Any], list[Any]]], name: str, measured: str
) -> None:
    """State ids, token ids, logits, K/V bytes and recalled blocks are those of the agent that never stopped."""
    unstopped, stopped = lives[name]

    assert [turn[measured] for turn in stopped] == [turn[measured] for turn in unstopped]


@pytest.mark.parametrize("name", LIVES)
def test_no_history_token_reaches_the_model_again(
    lives: dict[str, tuple[list[Any], list[Any]]], name: str
) -> None:
    """Tokens counted at the model's own forward are the turn's new tokens, and no more."""
    for turn, record in enumerate(lives[name][1]):
        assert record["prefilled"] == 0
        assert record["reread"] == 0
        if turn < TURNS - 1:
            assert record["forwarded"] == record["grown"]
        else:  # a stop string cut the reply: at most its tokens are dropped
            assert 0 <= record["dropped"] < 12


def test_the_sparse_lives_recall(lives: dict[str, tuple[list[Any], list[Any]]]) -> None:
    """The comparison means something: sparse agents recalled blocks, and decoded other ids than dense ones."""
    dense, sparse = (lives[f"{kind}-float32"][0] for kind in ("dense", "sparse"))

    assert [bool(turn["blocks"]) for turn in dense] == [False] * TURNS
    assert all(turn["blocks"] for turn in sparse)
    assert sparse[0]["kv"] != dense[0]["kv"]


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("gemma3", SMALL),
        ("gpt-oss", SMALL),
        ("smollm3", SMALL),
        ("qwen3-yarn", SMALL.changed(dense_tokens=200)),
        ("gemma2", SMALL.changed(dense_tokens=200)),
    ],
    ids=["gemma3", "gpt-oss", "smollm3", "qwen3-yarn, dense first", "gemma2, dense first"],
)
def test_closing_between_turns_changes_nothing(family: str, config: MemoryConfig) -> None:
    """Sliding layers, sinks, NoPE and YaRN: closed and opened between turns, the logits are the same bits."""
    model = language_model(family)
    records = []
    for stops in (False, True):
        home: Home = InMemoryHome()
        memory = AgentMemory.resume("ada", model=model, home=home, config=config)
        life = []
        for turn in range(TURNS):
            life.append(play(memory, model, turn))
            if stops:
                memory.close()
                memory = AgentMemory.resume("ada", model=model, home=home)
        records.append([[turn[key] for key in MEASURED if key != "states"] for turn in life])

    assert records[0] == records[1]

"""Fact 4: no agent's bytes, text or blocks ever reach another agent."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentmem.agent import AgentMemory
from agentmem.engine.model import LanguageModel
from agentmem.store import InMemoryHome
from agentmem.store.base import Home
from support.session_agent import log_tensors, same_bits
from support.templates import tokenizer_for
from support.tiny_language_model import SMALL, plain_model

AT = "2026-01-02T03:04:05+00:00"
NAMES = ("ada", "bob", "eve")
SECRETS = {"ada": "zanzibar walrus", "bob": "quixotic turnip", "eve": "jubilant hexagon"}


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """One model for all agents of this file."""
    return LanguageModel.wrap(plain_model(), tokenizer_for("chatml"))


def questions(name: str) -> list[str]:
    """What an agent is told; other agents are told other things."""
    secret = SECRETS[name]
    return [
        f"My secret is {secret}. " * 3,
        f"And {secret} it is, how far?",
        "What is my secret?",
        "And again?",
    ]


def opened(home: Home | Path, model: LanguageModel, name: str) -> AgentMemory:
    """An agent of that name."""
    return AgentMemory.resume(name, model=model, home=home, config=SMALL)


def live_alone(home: Home | Path, model: LanguageModel, name: str) -> AgentMemory:
    """All turns of one agent, with nobody else around."""
    memory = opened(home, model, name)
    for question in questions(name):
        memory.chat(question, max_new_tokens=8, at=AT)
    return memory


def interleaved(memories: dict[str, AgentMemory]) -> None:
    """A turn of each in turn."""
    for turn in range(4):
        for name, memory in memories.items():
            memory.chat(questions(name)[turn], max_new_tokens=8, at=AT)


def half_open(memories: dict[str, AgentMemory]) -> None:
    """All streams open at once, read a piece at a time, round and round."""
    for turn in range(4):
        streams = [m.stream(questions(name)[turn], max_new_tokens=8, at=AT) for name, m in memories.items()]
        while [piece for stream in streams if (piece := next(stream, None)) is not None]:
            pass


def threaded(memories: dict[str, AgentMemory]) -> None:
    """Each agent in a thread of its own, all at the same time."""

    def live(name: str) -> None:
        for question in questions(name):
            memories[name].chat(question, max_new_tokens=8, at=AT)

    with ThreadPoolExecutor(len(memories)) as threads:
        for done in [threads.submit(live, name) for name in memories]:
            done.result()


@pytest.mark.parametrize("together", [interleaved, half_open, threaded])
def test_agents_together_are_what_they_are_alone(
    together: Callable[[dict[str, AgentMemory]], None], model: LanguageModel, tmp_path: Path
) -> None:
    """Interleaved, with streams half open, or from threads: texts, ids and K/V as if each were alone."""
    alone = {name: live_alone(InMemoryHome(), model, name) for name in NAMES}
    crowd = {name: opened(tmp_path, model, name) for name in NAMES}
    together(crowd)

    for name in NAMES:
        assert texts(crowd[name]) == texts(alone[name])
        assert ids(crowd[name]) == ids(alone[name])
        assert same_bits(log_tensors(crowd[name]._store), log_tensors(alone[name]._store))
        assert bounds(crowd[name]) == bounds(alone[name])


def test_nothing_of_an_agent_is_in_anothers_folder_search_or_explanation(
    model: LanguageModel, tmp_path: Path
) -> None:
    """Grepped for texts, token ids and K/V rows; asked for by search; looked for in recalled blocks."""
    crowd = {name: opened(tmp_path, model, name) for name in NAMES}
    interleaved(crowd)
    blocks = {name: memory.explain().blocks for name, memory in crowd.items()}
    marks = {name: fingerprints_of(memory) for name, memory in crowd.items()}
    for memory in crowd.values():
        memory.close()
    folders = {name: folder_of(tmp_path, memory) for name, memory in crowd.items()}

    for name in NAMES:
        data = b"".join(path.read_bytes() for path in folders[name].rglob("*") if path.is_file())
        assert all(mark in data for mark in marks[name]), "the marks are findable at all"
        for other in set(NAMES) - {name}:
            assert not [mark for mark in marks[other] if mark in data]
            assert SECRETS[other].encode() not in data
        words = " ".join(block.text for block in blocks[name])
        assert blocks[name]
        assert not [w for other in set(NAMES) - {name} for w in SECRETS[other].split() if w in words]
        with AgentMemory.resume(name, home=tmp_path, read_only=True, model=model) as memory:
            assert memory.search(SECRETS[name].split()[0])
            assert not [
                w for other in set(NAMES) - {name} for w in SECRETS[other].split() if memory.search(w)
            ]


def test_a_workspace_carries_nothing_from_agent_to_agent(model: LanguageModel) -> None:
    """Buffers full of another agent's K/V, or of not-a-numbers, change no bit of a reply."""
    alone = live_alone(InMemoryHome(), model, "ada")
    memory = opened(InMemoryHome(), model, "ada")
    for question in questions("ada"):
        for workspace in model._workspaces:
            for tensor in tensors_of(workspace):
                tensor.fill_(float("nan"))
        memory.chat(question, max_new_tokens=8, at=AT)

    assert texts(memory) == texts(alone)
    assert same_bits(log_tensors(memory._store), log_tensors(alone._store))


def texts(memory: AgentMemory) -> list[Any]:
    """All messages."""
    return [turn.messages for turn in memory.history()]


def ids(memory: AgentMemory) -> list[int]:
    """All token ids."""
    return memory._store.token_ids(0, memory.tokens_held)


def bounds(memory: AgentMemory) -> list[tuple[int, int, float]]:
    """Recalled blocks of the last reply."""
    return [(block.start, block.stop, block.share) for block in memory.explain().blocks]


def fingerprints_of(memory: AgentMemory) -> list[bytes]:
    """Bytes that only this agent's files may hold: its uuid, its text, ids and a late layer's key."""
    store = memory._store
    keys_raw = log_tensors(store)[-2]  # the last layer's
    told = ids(memory)
    return [
        store.identity.uuid.encode(),
        SECRETS[store.identity.agent_id].encode(),
        np.array(told[4:24], dtype="<u4").tobytes(),
        keys_raw[0, 40].numpy().tobytes(),
    ]


def folder_of(home: Path, memory: AgentMemory) -> Path:
    """An agent's folder, told by its uuid."""
    uuid = memory._store.identity.uuid.encode()
    (folder,) = [db.parent for db in home.glob("agents/*/agent.db") if uuid in db.read_bytes()]
    return folder


def tensors_of(workspace: Any) -> list[Any]:
    """Every floating buffer of a workspace."""
    buffers = [tensor for layer in workspace.layers for tensor in (layer.keys_rot, layer.values)]
    staging = workspace.staging
    return [*buffers, *staging.keys_raw, *staging.values, *staging.queries_raw, workspace._keys]

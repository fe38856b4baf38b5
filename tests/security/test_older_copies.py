"""A whole older copy of an agent's folder that was put back is refused by who knows a later state."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from agentmem import AgentMemory, LanguageModel, MemoryConfig, MemoryKey
from agentmem.errors import AgentNotFoundError, StateNotFoundError
from agentmem.store import DiskHome
from support.tiny_language_model import language_model

SMALL = MemoryConfig(sink_tokens=4, window_tokens=32, recall_tokens=32, block_tokens=8, chunk_tokens=16)
AT = "2026-01-01T00:00:00+00:00"


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """A model of random weights."""
    return language_model()


@pytest.mark.parametrize("key", [None, MemoryKey.generate()], ids=["plain", "encrypted"])
def test_a_folder_put_back_is_refused(tmp_path: Path, model: LanguageModel, key: MemoryKey | None) -> None:
    """The state kept from the last session is expected: an older folder, an empty place and a stranger do not pass."""
    home = DiskHome(tmp_path / "home", key=key)

    def resumed(state: str | None, *, read_only: bool = False) -> AgentMemory:
        return AgentMemory.resume(
            "ada", model=model, home=home, config=SMALL, expect_state=state, read_only=read_only
        )

    with resumed(None) as memory:
        memory.append([{"role": "user", "content": "My dog is called Biscuit."}], at=AT)
        first = memory.checkpoint()
    folder = home.folder_of("ada")
    shutil.copytree(folder, tmp_path / "older")
    with resumed(first) as memory:
        memory.append([{"role": "user", "content": "It died."}], at=AT)
        second = memory.checkpoint()
    with resumed(second) as memory:
        memory.forget(turn=memory.history()[-1].turn)
    resumed(second).close()  # forgotten, but it was there
    resumed(first).close()

    shutil.move(folder, tmp_path / "newer")
    shutil.copytree(tmp_path / "older", folder)
    for read_only in (False, True):
        with pytest.raises(StateNotFoundError, match="older"):
            resumed(second, read_only=read_only)
    with resumed(first) as memory:
        assert len(memory.history()) == 1
    shutil.rmtree(folder)
    with pytest.raises(AgentNotFoundError, match="expected"):
        resumed(second)
    assert not folder.exists()
    shutil.move(tmp_path / "newer", folder)
    resumed(second).close()

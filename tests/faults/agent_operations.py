"""What is done to agents with a tiny model while faults happen: the public verbs, text in and turns out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from agentmem.agent import AgentMemory
from agentmem.store import DiskStore, NewTurn, Turn
from faults.agent_life import AT, home_of, logits_of, model, opened, short_of
from faults.faulted import Prepared, checked
from faults.trees import clone, scratch

STORY = "The quick brown fox jumps over the lazy dog, about 12 km, and back again. " * 5
NAMES = ("ada", "bob")
IN_PARTS = "observe a text in parts"
"""The one verb that is acknowledged piece by piece."""


def agent_operations(folder: Path) -> list[Prepared]:
    """Every verb, on an agent with a few turns."""
    folder.mkdir()
    lived = folder / "lived"
    with opened(lived) as memory:
        memory.chat("Hello there! My dog is called Biscuit.", at=AT, max_new_tokens=4)
        memory.observe(STORY, source="story", at=AT)
        memory.chat("What is my dog called?", at=AT, max_new_tokens=4)
    archive = folder / "ada.agentmem"
    AgentMemory.export("ada", archive, kv=True, home=home_of(lived))

    def restore(at: Path) -> None:
        AgentMemory.restore(archive, agent_id="bob", model=model(), home=home_of(at)).close()

    acts: dict[str, Callable[[Path], None]] = {
        "chat": _with(lambda memory: memory.chat("And again?", at=AT, max_new_tokens=4)),
        IN_PARTS: _with(lambda memory: memory.observe(STORY[::-1], source="back", at=AT)),
        "forget with a model": _with(lambda memory: memory.forget(turn=2)),
        "restore": restore,
    }
    return [_prepared(name, act, lived, folder / str(n)) for n, (name, act) in enumerate(acts.items())]


def see(folder: Path) -> Any:
    """All agents of a home, each verified; the first entry is the short form of "ada"."""
    found: list[Any] = [None]
    for name in NAMES:
        if not home_of(folder).exists(name):
            found.append(None)
            continue
        with opened(folder, name) as memory:
            report = memory.verify(deep=True)
            assert all(finding.file.startswith("digests/") for finding in report.findings), report.findings
            found[0] = found[0] or short_of(memory._store)
            history = [(turn.messages, turn.forgotten, turn.source) for turn in memory.history()]
            found.append((short_of(memory._store), history, logits_of(memory)))
    return found


def _with(act: Callable[[AgentMemory], Any]) -> Callable[[Path], None]:
    def whole(folder: Path) -> None:
        with opened(folder) as memory:
            act(memory)

    return whole


def _prepared(name: str, act: Callable[[Path], None], lived: Path, folder: Path) -> Prepared:
    clone(lived, folder)
    before = see(folder)
    parts: list[Any] = []
    real = DiskStore.commit

    def commit(store: DiskStore, turn: NewTurn) -> Turn:
        committed = real(store, turn)
        parts.append(short_of(store))
        return committed

    with scratch() as copy, patch.object(DiskStore, "commit", commit):
        clone(folder, copy / "done")
        act(copy / "done")
        after = see(copy / "done")
    return checked(Prepared(name, folder, act, see, before, after, parts if name == IN_PARTS else ()))

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
        "forget, reading later turns again": _with(lambda memory: memory.forget(turn=2, mode="rebuild")),
        "restore": restore,
        "reencode": _with(lambda memory: memory.reencode(model()).close()),
    }
    made = [_prepared(name, act, lived, folder / str(n)) for n, (name, act) in enumerate(acts.items())]
    _harm(lived)
    return [*made, _prepared("repair", _with(AgentMemory.repair), lived, folder / "harmed")]


def see(folder: Path) -> Any:
    """All agents of a home but for their states' names, which a new agent has of its own; first "ada" in short."""
    found: list[Any] = [None]
    for name in NAMES:
        if not home_of(folder).exists(name):
            found.append(None)
            continue
        with opened(folder, name) as memory:
            findings = memory.verify(deep=True).findings
            if any(not finding.file.startswith("digests/") for finding in findings):
                found.append("damaged")
                continue
            short = short_of(memory._store)[1:]
            found[0] = found[0] or short
            history = [(turn.messages, turn.forgotten, turn.source) for turn in memory.history()]
            found.append((short, history, logits_of(memory)))
    return found


def _harm(folder: Path) -> None:
    """Flip a bit of the keys that the newest turn wrote."""
    home = home_of(folder)
    store = home.open("ada")
    assert store.head is not None
    (extent,) = store._slots.ranges([store.head.id])
    spec = store._segments.spec
    path = store._segments.path(extent.segment)
    store.close()
    with path.open("r+b") as file:
        file.seek(spec.offset(0, 0, extent.start))
        (byte,) = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte ^ 4]))


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
        parts.append(short_of(store)[1:])
        return committed

    with scratch() as copy, patch.object(DiskStore, "commit", commit):
        clone(folder, copy / "done")
        act(copy / "done")
        after = see(copy / "done")
    return checked(Prepared(name, folder, act, see, before, after, parts if name == IN_PARTS else ()))

"""What is done to agents with a tiny model while faults happen: the public verbs, text in and turns out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from agentmem.agent import AgentMemory
from agentmem.store import DiskStore, MemoryKey, NewTurn, Turn
from faults.agent_life import AT, home_of, logits_of, model, opened, short_of
from faults.faulted import Prepared, checked
from faults.trees import clone, scratch

STORY = "The quick brown fox jumps over the lazy dog, about 12 km, and back again. " * 5
NAMES = ("ada", "bob")
Act = Callable[[Path], None]
IN_PARTS = "observe a text in parts"
"""The one verb that is acknowledged piece by piece."""


ENCRYPTED = ("chat", "forget, reading later turns again", "restore", "reencode")
"""Verbs that are also tried with a key."""


def agent_operations(folder: Path) -> list[Prepared]:
    """Every verb, on an agent with a few turns; some also on one that is encrypted."""
    folder.mkdir()
    plain, locked = _Place(folder / "plain", None), _Place(folder / "encrypted", MemoryKey.generate())
    made = [plain.prepared(name, act) for name, act in plain.acts().items()]
    made += [locked.prepared(name, act) for name, act in locked.acts().items() if name in ENCRYPTED]
    _harm(plain.lived)
    return [*made, plain.prepared("repair", plain.verb(AgentMemory.repair))]


class _Place:
    """An agent with a few turns, and copies of it; encrypted with a key, if there is one."""

    def __init__(self, folder: Path, key: MemoryKey | None) -> None:
        folder.mkdir()
        self.lived = folder / "lived"
        self._folder = folder
        self._key = key
        with opened(self.lived, key=key) as memory:
            memory.chat("Hello there! My dog is called Biscuit.", at=AT, max_new_tokens=4)
            memory.observe(STORY, source="story", at=AT)
            memory.chat("What is my dog called?", at=AT, max_new_tokens=4)
        self._archive = folder / "ada.agentmem"
        AgentMemory.export("ada", self._archive, kv=True, home=home_of(self.lived, key))

    def acts(self) -> dict[str, Act]:
        """The verbs."""

        def restore(at: Path) -> None:
            home = home_of(at, self._key)
            AgentMemory.restore(
                self._archive, agent_id="bob", model=model(), home=home, key=self._key
            ).close()

        return {
            "chat": self.verb(lambda memory: memory.chat("And again?", at=AT, max_new_tokens=4)),
            IN_PARTS: self.verb(lambda memory: memory.observe(STORY[::-1], source="back", at=AT)),
            "forget with a model": self.verb(lambda memory: memory.forget(turn=2)),
            "forget, reading later turns again": self.verb(
                lambda memory: memory.forget(turn=2, mode="rebuild")
            ),
            "restore": restore,
            "reencode": self.verb(lambda memory: memory.reencode(model()).close()),
        }

    def verb(self, act: Callable[[AgentMemory], Any]) -> Act:
        """Open the agent, do that, close it."""

        def whole(folder: Path) -> None:
            with opened(folder, key=self._key) as memory:
                act(memory)

        return whole

    def prepared(self, name: str, act: Act) -> Prepared:
        """The verb on a copy of the agent, seen to do what it should."""
        folder = self._folder / name
        clone(self.lived, folder)
        before = self.see(folder)
        parts: list[Any] = []
        real = DiskStore.commit

        def commit(store: DiskStore, turn: NewTurn) -> Turn:
            committed = real(store, turn)
            parts.append(short_of(store)[1:])
            return committed

        with scratch() as copy, patch.object(DiskStore, "commit", commit):
            clone(folder, copy / "done")
            act(copy / "done")
            after = self.see(copy / "done")
        between = parts if name == IN_PARTS else ()
        label = name if self._key is None else f"{name}, encrypted"
        return checked(
            Prepared(label, folder, act, self.see, before, after, between, lambda at: home_of(at, self._key))
        )

    def see(self, folder: Path) -> Any:
        """All agents of a home but for their states' names, which a new agent has of its own; first "ada" in short."""
        found: list[Any] = [None]
        for name in NAMES:
            if not home_of(folder).exists(name):
                found.append(None)
                continue
            with opened(folder, name, self._key) as memory:
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

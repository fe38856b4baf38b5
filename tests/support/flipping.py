"""A small store whose every bit can be changed: what it must answer, and what it answered instead.

``LivedIn`` is an agent's folder with a bit of everything in it: branches, a forgotten turn, parts of a source, notes,
digests, states of a rule. ``outcome`` opens a changed copy of it, reads everything, writes a turn, and reads
again: "right", "refused" (a typed error), or what was silently wrong.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from agentmem.errors import AgentMemError
from agentmem.memory.source import RuleState
from agentmem.store import DiskHome, Store
from agentmem.store.pages import PAGE_SLOTS
from support.stores import DIGEST_BLOCKS, add_turn, contents, create, kv, new_turn

KIND = "rule"


class LivedIn:
    """An agent that has been through much, as the bytes of its files; ``wal``: as a killed writer leaves it."""

    def __init__(self, home: Path, *, wal: bool) -> None:
        self.home = DiskHome(home, segment_tokens=PAGE_SLOTS, digest_blocks=DIGEST_BLOCKS)
        store = create(self.home)
        live(store)
        self.folder = self.home._folder("ada")
        if not wal:
            store.close()
        else:
            last_turns(store)  # what the log alone holds
        self.files = {
            path.relative_to(self.folder): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and not path.name.endswith("-shm")
        }
        if wal:
            store.close()
        self.put_back()
        self.answers = self._answers()
        self.put_back()

    def outcome(self, name: Path, data: bytes) -> str:
        """What comes of another content of one file."""
        self.put_back()
        (self.folder / name).write_bytes(data)
        try:
            found = self._answers()
        except AgentMemError:
            return "refused"
        wrong = [key for key, answer in self.answers.items() if not equal(found.get(key), answer)]
        return f"silently wrong: {', '.join(wrong)}" if wrong else "right"

    def _answers(self) -> dict[str, Any]:
        store = self.home.open("ada")
        try:
            found = answers(store, "before")
            add_turn(store, 50, 30, blocks=1)
        finally:
            store.close()
        store = self.home.open("ada")
        try:
            return found | answers(store, "after")
        finally:
            store.close()

    def put_back(self) -> None:
        """Make the files what they were."""
        shutil.rmtree(self.folder)
        for name, data in self.files.items():
            path = self.folder / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_bytes(data)
        for folder in ("kv", "digests"):
            (self.folder / folder).mkdir(mode=0o700, exist_ok=True)


def live(store: Store) -> None:
    """Turns of every sort."""
    store.digests.select("mean")
    with_state(store, 1, 9)
    add_turn(store, 2, 8, blocks=1, source="notes.txt", part=0)
    add_turn(store, 3, 8, blocks=1, source="notes.txt", part=1)
    store.begin("state-2")
    store.log.append(*kv(4, 3))
    store.commit(new_turn(4, 3, state_id="elsewhere"))
    store.rewind("state-3")
    gone = add_turn(store, 5, 4, messages=[{"role": "user", "content": "a secret"}])
    with_state(store, 6, 7)
    store.forget([gone.id])
    store.note("config", {"sink_tokens": 4})
    store.note("another", ["x" * 30])


def last_turns(store: Store) -> None:
    """Turns that are in the write-ahead log alone."""
    add_turn(store, 7, 5, receipt={"seconds": 1.5})
    store.note("config", {"sink_tokens": 8})
    with_state(store, 8, 6)


def with_state(store: Store, seed: int, count: int) -> None:
    """A turn of a rule that remembers something."""
    store.begin()
    store.log.append(*kv(seed, count))
    running = torch.arange(2.0 * count).view(2, count)
    store.digests.states.keep(RuleState(KIND, 0, running, 0, torch.ones(1, 2, dtype=torch.int16)))
    store.commit(new_turn(seed, count))


def answers(store: Store, when: str) -> dict[str, Any]:
    """Everything the store says."""
    length = store.log.length
    state = store.digests.states.last(KIND)
    found = {
        "identity": store.identity,
        "turns": store.turns(),
        "elsewhere": store.turns(at="elsewhere"),
        "head": store.head,
        "ids": store.token_ids(0, length),
        "log": contents(store.log),
        "dead": list(store.log.dead),
        "parts": store.observed_parts("notes.txt"),
        "state": None if state is None else (state.start, state.running, state.closed),
        "closed": store.digests.states.closed(KIND),
        "found": [store.find_state(f"state-{seed}").id for seed in (1, 2, 3, 6)],
        "search": [turn.id for turn in store.search("message")],
        "notes": [store.noted("config"), store.noted("another"), store.noted("nothing")],
        "origins": store.origins(),
    }
    return {f"{key} {when}": answer for key, answer in found.items()}


def bits(data: bytes, step: int = 1, first: int = 0) -> Iterator[tuple[int, bytes]]:
    """(bit, the data with that bit changed), every ``step``-th bit."""
    for bit in range(first, 8 * len(data), step):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bit, bytes(changed)


def equal(one: Any, other: Any) -> bool:
    """Whether two answers are the same, tensors to the bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)

"""What the index of a long agent holds in memory while it is open, and what looking through all its turns takes.

    python -m benchmarks.index_memory                 10,000 turns, 1,000,000 tokens
    python -m benchmarks.index_memory --turns 1000 --tokens 100000

The index is made without a model: turns with texts and token ids as long as real ones, and the page checksums of
smollm2-135m's keys and values (30 layers of 3 heads), which no file of keys and values stands behind. A plain index
is read from its file as it is asked for; an encrypted one is held in memory whole. *Memory* is what no file backs in a process of its own,
above that of the same process with an empty agent: after opening, and at its peak while opening. Times are seconds of computing.
"""

# ruff: noqa: S311, SLF001 (made-up rows go in beneath the store, and need no good chance)

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from agentmem.memory.source import KVLayout
from agentmem.store import DiskHome, DiskStore, MemoryKey, NewTurn
from agentmem.store.extents import Extent
from agentmem.store.pages import PAGE_SLOTS, PageSums
from benchmarks.history import sentences
from benchmarks.machine import PeakMemory, anonymous_bytes, release_freed

LAYOUT = KVLayout(((3, 64),) * 30, torch.bfloat16)
COLUMNS = 2 * sum(heads for heads, _ in LAYOUT.layers)
SEGMENT = 8192
MIB = 1 << 20
WORD = "zephyr"
"""Stands in one turn of the middle alone."""


def make(home: DiskHome, name: str, turns: int, tokens: int) -> None:
    """An agent's index, without its keys and values."""
    store = home.create(name, fingerprint={}, layout=LAYOUT, model="none", facts={"chunk_tokens": 512})
    chance, texts, each = random.Random(1), sentences(1), tokens // max(turns, 1)
    sums = (12 + 16 * COLUMNS) if home.key is not None else 8 * COLUMNS
    parent, done = None, 0
    for first in range(0, turns, 500):
        with store._index.transaction():
            for number in range(first, min(first + 500, turns)):
                text = ""
                while len(text) < 4.5 * each:
                    text += next(texts) + " "
                turn = _turn(number, text + (WORD if number == turns // 2 else ""), each, chance)
                parent = store._turns.insert(turn, parent, (None, 0))
                store._slots.add_extents(parent.id, _extents(done, each))
                done += each
            pages = range((done - 500 * each) // PAGE_SLOTS if first else 0, done // PAGE_SLOTS)
            store._slots.set_pages(
                (
                    page * PAGE_SLOTS // SEGMENT,
                    PageSums(page % (SEGMENT // PAGE_SLOTS), PAGE_SLOTS, chance.randbytes(sums)),
                )
                for page in pages
            )
            store._index.set_head(parent.id if parent is not None else None)
    store.close()


def _turn(number: int, text: str, tokens: int, chance: random.Random) -> NewTurn:
    ids = [chance.randrange(49152) for _ in range(tokens)]
    messages = [
        {"role": "user", "content": text[: len(text) // 2]},
        {"role": "assistant", "content": text[len(text) // 2 :]},
    ]
    pending = {"ids": [], "open_role": "assistant", "call_id": None}
    return NewTurn(f"{number:032x}", "chat", messages, ids, pending, "2026-01-02T03:04:05+00:00")


def _extents(start: int, count: int) -> list[Extent]:
    found = []
    while count:
        segment, slot = divmod(start, SEGMENT)
        here = min(count, SEGMENT - slot)
        found.append(Extent(start, segment, slot, here))
        start, count = start + here, count - here
    return found


def probe(folder: Path, name: str, key: str) -> None:
    """Open an agent in this process, and print figures as JSON."""
    home = DiskHome(folder, key=MemoryKey.read(key) if key else None)
    home.open("empty").close()
    release_freed()
    before = anonymous_bytes() or 0
    with PeakMemory() as peak:
        opened, store = timed(lambda: home.open(name))
    release_freed()
    figures: dict[str, Any] = {
        "open": opened,
        "held": ((anonymous_bytes() or 0) - before) / MIB,
        "peak": peak.risen or 0.0,
    }
    assert isinstance(store, DiskStore)
    for label, call in CALLS.items():
        first, _ = timed(lambda: call(store))  # noqa: B023
        again, found = timed(lambda: call(store))  # noqa: B023
        figures[label] = [first, again, len(found)]
    store.close()
    sys.stdout.write(json.dumps(figures))


CALLS: dict[str, Callable[[DiskStore], list[Any]]] = {
    "search, one turn has it": lambda store: store.search(WORD),
    "search, none has it": lambda store: store.search("qqqq"),
    "search, nearly all have it": lambda store: store.search("the"),
    "every_turn": lambda store: store.every_turn(),
    "turns(limit=20)": lambda store: store.turns(limit=20),
}


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of computing, and what came of it."""
    started = time.process_time()
    found = call()
    return time.process_time() - started, found


def main() -> int:
    """Make the agents, then look at each in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.index_memory", description=__doc__)
    parser.add_argument("--turns", type=int, default=10_000)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--probe", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.probe:
        probe(Path(asked.probe[0]), asked.probe[1], asked.probe[2])
        return 0
    with tempfile.TemporaryDirectory() as folder:
        file = MemoryKey.generate().save(Path(folder) / "key")
        for kind, key in (("plain", ""), ("encrypted", str(file))):
            home = DiskHome(
                Path(folder) / kind, key=MemoryKey.read(key) if key else None, segment_tokens=SEGMENT
            )
            make(home, "empty", 0, 0)
            make(home, "long", asked.turns, asked.tokens)
            size = sum(path.stat().st_size for path in home.folder_of("long").glob("agent.*")) / MIB
            command = [
                sys.executable,
                "-m",
                "benchmarks.index_memory",
                "--probe",
                str(home.home),
                "long",
                key,
            ]
            figures = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            sys.stdout.write(
                f"{kind}: {asked.turns:,} turns, {asked.tokens:,} tokens: {size:.0f} MB on disk; opening "
                f"{figures['open']:.2f} s; memory {figures['held']:.0f} MB after it, {figures['peak']:.0f} MB at its peak\n"
            )
            for label in CALLS:
                first, again, count = figures[label]
                sys.stdout.write(
                    f"    {label}: {first * 1e3:.1f} ms, again {again * 1e3:.1f} ms ({count} turns)\n"
                )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""What many openings and turns leave behind in a process: descriptors, maps, threads, memory.

The long profile calls this with 10,000 openings and 2,000 turns.
"""

from __future__ import annotations

import gc
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from agentmem.agent import AgentMemory
from agentmem.engine.model import LanguageModel
from agentmem.store import MemoryKey
from support.tiny_language_model import SMALL


@dataclass(frozen=True)
class Left:
    """How many more there are after than before."""

    descriptors: int
    maps: int
    threads: int
    megabytes: float

    @classmethod
    def now(cls) -> Left:
        """What the process has."""
        gc.collect()
        maps = Path("/proc/self/maps").read_text().splitlines()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            descriptors=sum(1 for _ in Path("/proc/self/fd").iterdir()),
            maps=sum("agents/" in line for line in maps),
            threads=threading.active_count(),
            megabytes=pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20),
        )

    def since(self, before: Left) -> Left:
        """The difference."""
        return Left(
            self.descriptors - before.descriptors,
            self.maps - before.maps,
            self.threads - before.threads,
            self.megabytes - before.megabytes,
        )


def leaks(home: Path, model: LanguageModel, key: MemoryKey | None, *, openings: int, turns: int) -> Left:
    """Open and close one agent so often, then take so many turns with it, and say what is left of both."""

    def opened() -> AgentMemory:
        return AgentMemory.resume("ada", model=model, home=home, key=key, config=SMALL)

    with opened() as memory:
        for _ in range(4):
            memory.chat("How far is it?", max_new_tokens=2)
    for _ in range(min(20, openings)):  # what is made once is made now
        opened().close()
    before = Left.now()
    for _ in range(openings):
        with opened() as memory:
            memory.history(limit=1)
            memory.verify()
    with opened() as memory:
        for number in range(turns):
            memory.chat(f"And {number}?", max_new_tokens=2)
    return Left.now().since(before)

"""An agent that dies in the middle of a turn, by SIGKILL: no handler runs, nothing is flushed.

Run as ``python -m support.killed_agent HOME WHERE``: "prefill", "decode", "observe", and "prefill-after",
"decode-after": in a turn that goes on from the first state.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentmem.agent import AgentMemory, observing
from support.tiny_language_model import language_model

PART = 40
LONG = " ".join(
    f"The fox number {number} jumps over the lazy dog, about {number * 7} km." for number in range(12)
)


def kill(*_: Any) -> None:
    """Die now."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_forward(count: int, memory: AgentMemory) -> None:
    """Die when the model has been called ``count`` times, with a chunk half through its layers."""
    calls = 0

    def note(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == count:
            kill()

    layers: Sequence[Any] = language_model().binding.model.model.layers
    layers[-1].register_forward_pre_hook(note)


def main() -> None:
    """Do what is asked, and die in it."""
    home, where = Path(sys.argv[1]), sys.argv[2]
    observing.PART_TOKENS = PART
    memory = AgentMemory.resume("ada", model=language_model(), home=home, create=False)
    after = memory.history()[0].state_id if where.endswith("-after") else "head"
    if where.startswith("prefill"):
        die_at_forward(3, memory)
        text = "The quick brown fox jumps over the lazy dog. " * 6
        memory.generate([{"role": "user", "content": text}], after=after)
    elif where.startswith("decode"):
        asked = [{"role": "user", "content": "What is my dog called?"}]
        for number, _ in enumerate(memory.generate_stream(asked, max_new_tokens=40, after=after)):
            if number == 5:
                kill()
    else:
        at = "2026-01-02T03:04:05+00:00"
        memory.observe(
            LONG, source="long", at=at, on_progress=lambda done, _: kill() if done > 3 * PART else None
        )
    raise SystemExit("it should have died")


if __name__ == "__main__":
    main()

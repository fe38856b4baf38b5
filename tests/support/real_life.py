"""Two turns of an agent on the small real model, for a process of its own.

Run as ``python -m support.real_life HOME TURN``: plays the turn and prints what came of it as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from agentmem.agent import AgentMemory
from agentmem.config import MemoryConfig
from support.two_lives import counted, kv_digest

MODEL = "smollm2-135m"
CONFIG = MemoryConfig(
    sink_tokens=32, window_tokens=96, recall_tokens=96, block_tokens=16, chunk_tokens=64, reselect_every=16
)
STORY = "On Monday the baker sold bread, on Tuesday cake, and on Wednesday he slept until noon. " * 12
QUESTIONS = ("My dog is called Biscuit. What is a good name for a cat?", "What is my dog called?")


def play(home: Path, turn: int) -> dict[str, Any]:
    """Open, play one turn, close."""
    config = CONFIG if turn == 0 else None
    with AgentMemory.resume("ada", model=MODEL, home=home, dtype="bfloat16", config=config) as memory:
        held = memory.tokens_held
        with counted(memory._model.get().binding.model) as lengths:
            if turn == 0:
                memory.chat(QUESTIONS[0], max_new_tokens=8, at="2026-01-01T00:00:00+00:00")
                memory.observe(STORY, at="2026-01-01T00:00:00+00:00")
            else:
                memory.chat(QUESTIONS[1], max_new_tokens=24, at="2026-01-02T00:00:00+00:00")
        blocks = memory.explain().blocks
        return {
            "texts": [turn.messages for turn in memory.history()],
            "states": [turn.state_id for turn in memory.history()],
            "kv": kv_digest(memory),
            "blocks": [[block.start, block.share] for block in blocks],
            "forwarded": sum(lengths),
            "grown": memory.tokens_held - held,
            "prefilled": memory.resumed.tokens_prefilled,
        }


if __name__ == "__main__":
    print(json.dumps(play(Path(sys.argv[1]), int(sys.argv[2]))))

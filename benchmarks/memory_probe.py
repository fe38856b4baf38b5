"""Peak anonymous memory of one agent at one length, measured in a process of its own.

Run by ``benchmarks.core``; prints one line of JSON. A process of its own, because an allocator keeps what
earlier work needed. The zero is taken after the weights are loaded, one short turn was run and
what loading had freed was given back.
"""

from __future__ import annotations

import json
import sys
import tempfile

from agentmem import AgentMemory
from agentmem.engine.model import LanguageModel
from benchmarks.history import text_of
from benchmarks.machine import PeakMemory, release_freed
from benchmarks.plan import QUESTION
from benchmarks.step_clock import StepClock


def main() -> None:
    """Arguments: model, home, agent id, tokens to decode, tokens to read."""
    name, home, agent_id, reply, ingest = sys.argv[1:]
    model = LanguageModel.load(name)
    with (
        tempfile.TemporaryDirectory() as elsewhere,
        AgentMemory.resume("x", model=model, home=elsewhere) as other,
    ):
        other.chat("Hello.", max_new_tokens=4)
    release_freed()
    clock = StepClock(model.template.stop_ids)
    with PeakMemory() as both:
        with PeakMemory() as turn, AgentMemory.resume(agent_id, model=model, home=home) as memory:
            message = {"role": "user", "content": QUESTION}
            memory.generate([message], logits_processor=[clock], max_new_tokens=int(reply), remember=False)
        with AgentMemory.resume(agent_id, model=model, home=home) as memory:
            before = memory.checkpoint()
            memory.observe(text_of(model.tokenizer, int(ingest), seed=7))
            memory.rewind(before)
    sys.stdout.write(json.dumps({"turn": turn.risen, "ingest": both.risen}) + "\n")


if __name__ == "__main__":
    main()

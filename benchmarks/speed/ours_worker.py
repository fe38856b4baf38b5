"""agentmem in a process of its own: what the public API does behind synthetic histories, timed.

    python -m benchmarks.speed.ours_worker MODEL FOLDER

Every measurement ends with a rewind, so all rounds see the same state. Knows nothing of peers.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentmem import AgentMemory
from agentmem.engine.model import LanguageModel
from agentmem.store import DiskHome
from benchmarks.history import text_of
from benchmarks.machine import evict
from benchmarks.speed.counted import written_bytes
from benchmarks.speed.floors import Floors
from benchmarks.speed.rpc import Figures, serve
from benchmarks.speed.shape import shape_of, widest_linear
from benchmarks.speed.synthetic import grow
from benchmarks.step_clock import StepClock
from benchmarks.timed_store import TimedHome

QUESTION = "What was said about the lantern?"
_SPARE = 2
"""Tokens that a text of N tokens is shorter, so that it never needs one more chunk."""


class OurSide:
    """One model, and a home of synthetic agents: ``at-N`` holds N tokens.

    Args:
        model: ready to run.
        folder: where agents are kept.
    """

    def __init__(self, model: LanguageModel, folder: Path) -> None:
        self._model = model
        self._folder = folder
        self._home = TimedHome(DiskHome(folder))
        network: Any = model.binding.model
        self._shape = shape_of(network, model.binding.layers, model.layout.bytes_per_token)
        delta = model.template.delta(None, [{"role": "user", "content": "x"}], tools=None, reply=False)
        self._overhead = len(delta.ids)
        """Tokens that the template adds to a text, at most: a first turn's."""
        self._floors = Floors(*widest_linear(network))

    def info(self) -> dict[str, float]:
        """Numbers of the model and of the default configuration."""
        with self._resumed("info") as memory:
            budget, chunk = memory.config.budget, memory.config.chunk_tokens
        AgentMemory.delete("info", home=self._home)
        return {**vars(self._shape), "budget": budget, "chunk": chunk}

    def prepare(self, lengths: Sequence[int]) -> None:
        """Write the synthetic histories that are not there yet, and run everything once."""
        there = {info.agent_id for info in AgentMemory.list(home=self._home)}
        missing = [length for length in lengths if length and _name(length) not in there]
        if missing:
            grow(self._home, self._model, f"history-{len(there)}", missing, _name)
        with self._resumed("warm-up") as memory:
            memory.chat("Hello.", max_new_tokens=4)
        AgentMemory.delete("warm-up", home=self._home)

    def floors(self, length: int) -> Figures:
        """What the machine does at this moment; ``length`` names what it is measured beside."""
        return dict(vars(self._floors.sample()))

    def chunk(self, length: int, tokens: int) -> Figures:
        """Read so many tokens behind ``length`` ones, in an agent that is open already."""
        with self._opened(length) as memory:
            if length:  # after a resume the first pages read are checked, which is the resume's cost
                self._taken_back(memory, 16)
            return self._taken_back(memory, tokens)

    def whole(self, length: int) -> Figures:
        """Read so many tokens from nothing."""
        with self._opened(0) as memory:
            return self._taken_back(memory, length)

    def decode(self, length: int, tokens: int) -> Figures:
        """Decode a reply behind ``length`` tokens."""
        with self._opened(length) as memory:
            return self._decoded(memory, tokens)

    def resume(self, length: int) -> Figures:
        """Open an agent and sample its first token: from a warm page cache and, where it can be, a cold one."""
        self._first_token(length)  # what it reads is in the page cache now; opening alone reads no keys
        found = dict(zip(("resume_ms", "first_ms"), self._first_token(length), strict=True))
        if evict(self._folder / "agents"):
            found |= zip(("cold_resume_ms", "cold_first_ms"), self._first_token(length), strict=True)
        return found

    def turn(self, length: int, tokens: int) -> Figures:
        """A question and a reply that are kept: the store's part of the time, and the bytes of an observation."""
        with self._opened(length) as memory:
            before = memory.checkpoint()
            self._home.clock.take()
            started = time.perf_counter()
            memory.chat(QUESTION, max_new_tokens=tokens, min_new_tokens=tokens)
            seconds = time.perf_counter() - started
            stored = sum(self._home.clock.take().values())
            memory.rewind(before)
            text = self._text(2 * memory.config.chunk_tokens)
            counted = written_bytes()
            receipt = memory.observe(text)
            after = written_bytes()
            memory.rewind(before)
        found = {"turn_ms": 1000 * seconds, "checkpoint_ms": 1000 * stored}
        if counted is not None and after is not None:
            kv = receipt.tokens_prefilled * self._shape.kv_bytes
            found |= {
                "kv_bytes": float(kv),
                "written_bytes": float(after.written - counted.written),
                "device_bytes": float(after.device - counted.device),
            }
        return found

    def agents(self, length: int, tokens: int) -> Figures:
        """One agent decoding, then four at once, each a fork of the same past."""
        one = [f"four-{number}" for number in range(4)]
        with self._opened(length) as memory:
            for name in one:
                memory.fork(name).close()
        try:
            alone = self._together(one[:1], tokens)
            together = self._together(one, tokens)
        finally:
            for name in one:
                AgentMemory.delete(name, home=self._home)
        return {"one_tokens_per_s": alone, "four_tokens_per_s": together}

    # -- small things ---------------------------------------------------------------------------------

    def _together(self, names: Sequence[str], tokens: int) -> float:
        """Tokens/s of all agents, from the moment that each has sampled its first token."""
        memories = [self._resumed(name) for name in names]
        clocks = [StepClock(self._model.template.stop_ids) for _ in names]
        errors: list[BaseException] = []

        def talk(memory: AgentMemory, clock: StepClock) -> None:
            try:
                self._generate(memory, clock, tokens)
            except BaseException as error:  # noqa: BLE001  # raised in the caller's thread
                errors.append(error)

        threads = [threading.Thread(target=talk, args=pair) for pair in zip(memories, clocks, strict=True)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            for memory in memories:
                memory.close()
        if errors:
            raise errors[0]
        begun, ended = max(clock.first for clock in clocks), max(clock.last for clock in clocks)
        return sum(clock.after(begun) for clock in clocks) / (ended - begun)

    def _decoded(self, memory: AgentMemory, tokens: int) -> Figures:
        clock = StepClock(self._model.template.stop_ids)
        self._generate(memory, clock, tokens)
        return {"tokens_per_s": clock.tokens_per_second, "step_ms": clock.median_step}

    def _first_token(self, length: int) -> tuple[float, float]:
        """Milliseconds of the resume alone, and from before it to the first token."""
        clock = StepClock(self._model.template.stop_ids)
        started = time.perf_counter()
        with self._resumed(_name(length)) as memory:
            resumed = time.perf_counter()
            assert memory.resumed.tokens_prefilled == 0
            self._generate(memory, clock, 1)
        return 1000 * (resumed - started), clock.since(started)

    def _taken_back(self, memory: AgentMemory, tokens: int) -> Figures:
        """Read a text, then leave the memory as it was."""
        before, text = memory.checkpoint(), self._text(tokens)
        receipt = memory.observe(text)
        memory.rewind(before)
        return {"seconds": receipt.seconds, "tokens": receipt.tokens_prefilled}

    def _text(self, tokens: int) -> str:
        return text_of(self._model.tokenizer, max(4, tokens - self._overhead - _SPARE), seed=tokens)

    @staticmethod
    def _generate(memory: AgentMemory, clock: StepClock, tokens: int) -> None:
        message = {"role": "user", "content": QUESTION}
        memory.generate([message], logits_processor=[clock], max_new_tokens=tokens, remember=False)

    def _opened(self, length: int) -> AgentMemory:
        return self._resumed(_name(length) if length else "empty")

    def _resumed(self, name: str) -> AgentMemory:
        return AgentMemory.resume(name, model=self._model, home=self._home)


def _name(length: int) -> str:
    return f"at-{length}"


def main() -> None:
    """Serve the model that the command line names."""
    name, folder = sys.argv[1:]
    side = OurSide(LanguageModel.load(name), Path(folder))
    calls = (side.info, side.prepare, side.floors, side.chunk, side.whole, side.decode, side.resume)
    serve({call.__name__: call for call in (*calls, side.turn, side.agents)})


if __name__ == "__main__":
    main()

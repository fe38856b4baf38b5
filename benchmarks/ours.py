"""Measures agentmem: one history per model is read once and forked at each length, then rounds are run.

Uses the public API; only the time spent in the store is taken from a wrapped home. Every measurement ends
with a rewind, so all rounds see the same state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agentmem import AgentMemory
from agentmem.engine.model import LanguageModel
from agentmem.store import DiskHome
from benchmarks.history import text_of
from benchmarks.machine import evict
from benchmarks.plan import QUESTION, Plan, Samples
from benchmarks.step_clock import StepClock
from benchmarks.timed_store import TimedHome

Tick = Callable[[str], None]
"""Told what is being done now, in words."""
_TEMPLATE_ROOM = 64
"""Tokens left to the template, so that a history of N tokens holds N at most."""


class OurSide:
    """agentmem on one model. Knows nothing of the peer."""

    def __init__(self, model: LanguageModel, folder: Path, plan: Plan, samples: Samples) -> None:
        self.model = model
        self.ids: dict[int, list[int]] = {}
        """Token ids of the history at each length: what the peer is given too."""
        self._folder = folder
        self._home = TimedHome(DiskHome(folder))
        self._plan = plan
        self._samples = samples

    def warm_up(self) -> None:
        """One small turn, so that no first call of a library is timed."""
        with self._resumed("warm-up") as memory:
            memory.chat("Hello.", max_new_tokens=4)
            memory.observe(text_of(self.model.tokenizer, 600, seed=1))

    def build(self, tick: Tick) -> None:
        """Read the history; at each length note ids, bytes and speed, and keep a fork to measure on."""
        held = 0
        with self._resumed("history") as memory:
            store = self._home.store
            assert store is not None
            for number, length in enumerate(sorted(self._plan.lengths)):
                tick(f"reading up to {length:,} tokens")
                text = text_of(self.model.tokenizer, length - held - _TEMPLATE_ROOM, self._plan.seed + number)
                receipt = memory.observe(text)
                held = memory.tokens_held
                self._add(length, "build_tokens_per_s", receipt.tokens_prefilled / receipt.seconds)
                self._note_disk(length, held)
                self.ids[length] = store.token_ids(0, held)
                memory.fork(_name(length)).close()
        self._home.clock.take()

    def round(self, length: int, number: int, tick: Tick) -> None:
        """Every measurement once, at one length."""
        tick(f"{length:,}: resuming")
        self._resume_warm(length)
        self._resume_cold(length)
        with self._resumed(_name(length)) as memory:
            tick(f"{length:,}: a turn")
            self._turn(memory, length)
            tick(f"{length:,}: reading")
            self._ingest(memory, length, number)

    # -- one measurement each -------------------------------------------------------------------------

    def _resume_warm(self, length: int) -> None:
        for _ in range(self._plan.resumes):
            with self._resumed(_name(length)) as memory:
                self._add(length, "resume_warm_ms", 1000 * memory.resumed.seconds)
                assert memory.resumed.tokens_prefilled == 0
        with self._resumed(_name(length)) as memory:
            self._add(length, "first_token_after_resume_warm_ms", self._first_token(memory))
            self._add(length, "first_token_held_open_ms", self._first_token(memory))

    def _resume_cold(self, length: int) -> None:
        if not evict(self._folder):
            self._samples.skip("cold page cache: this system kept the files in memory; not measured")
            return
        with self._resumed(_name(length)) as memory:
            self._add(length, "resume_cold_ms", 1000 * memory.resumed.seconds)
            self._add(length, "first_token_after_resume_cold_ms", self._first_token(memory))

    def _turn(self, memory: AgentMemory, length: int) -> None:
        before = memory.checkpoint()
        clock = StepClock(self.model.template.stop_ids)
        self._home.clock.take()
        started = time.perf_counter()
        reply = self._reply(memory, clock, self._plan.reply, remember=True)
        turn_ms = 1000 * (time.perf_counter() - started)
        stored = self._home.clock.take()
        checkpoint_ms = 1000 * sum(stored.values())
        self._add(length, "decode_tokens_per_s", clock.tokens_per_second)
        self._add(length, "decode_step_ms", clock.median_step)
        self._add(length, "decode_longest_step_ms", max(clock.steps))
        self._add(length, "turn_ms", turn_ms)
        self._add(length, "checkpoint_ms", checkpoint_ms)
        self._add(length, "checkpoint_percent", 100 * checkpoint_ms / turn_ms)
        if reply != self._plan.reply:
            self._samples.failed.append(f"{self.model.name} at {length}: {reply} tokens were decoded")
        memory.rewind(before)

    def _ingest(self, memory: AgentMemory, length: int, number: int) -> None:
        before = memory.checkpoint()
        text = text_of(self.model.tokenizer, self._plan.ingest, 1000 + number)
        self._home.clock.take()
        receipt = memory.observe(text)
        stored = self._home.clock.take()
        self._add(length, "ingest_tokens_per_s", receipt.tokens_prefilled / receipt.seconds)
        self._add(length, "ingest_checkpoint_percent", 100 * sum(stored.values()) / receipt.seconds)
        memory.rewind(before)

    def _first_token(self, memory: AgentMemory) -> float:
        clock = StepClock(self.model.template.stop_ids)
        started = time.perf_counter()
        self._reply(memory, clock, 1, remember=False)
        return clock.since(started)

    @staticmethod
    def _reply(memory: AgentMemory, clock: StepClock, tokens: int, *, remember: bool) -> int:
        message = {"role": "user", "content": QUESTION}
        reply = memory.generate([message], logits_processor=[clock], max_new_tokens=tokens, remember=remember)
        return reply.receipt.tokens_generated

    # -- small things ---------------------------------------------------------------------------------

    @contextmanager
    def _resumed(self, name: str) -> Iterator[AgentMemory]:
        with AgentMemory.resume(name, model=self.model, home=self._home) as memory:
            yield memory

    def _note_disk(self, length: int, held: int) -> None:
        info = next(info for info in AgentMemory.list(home=self._home) if info.agent_id == "history")
        self._add(length, "disk_bytes_per_token", info.bytes / held)
        self._add(length, "kv_bytes_per_token", self.model.layout.bytes_per_token)

    def _add(self, length: int, metric: str, value: float | None) -> None:
        self._samples.add(self.model.name, length, metric, value)


def _name(length: int) -> str:
    return f"at-{length}"

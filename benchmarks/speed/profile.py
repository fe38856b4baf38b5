"""Every millisecond of one decoded token and of one chunk that is read, by part, beside what the machine allows.

    python -m benchmarks.speed.profile                       both built-in models behind 8,000 tokens
    python -m benchmarks.speed.profile --model smollm2-135m --tokens 32000 --json profile.json

The history is synthetic (random keys and values in the store, page cache warm); the weights are real. Steps with
and without the stopwatch alternate, and what the stopwatch itself costs is printed. On a busy machine
``--cpu-time`` counts the processor's time on one thread instead of the clock's on all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from agentmem import AgentMemory, MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.store import DiskHome
from benchmarks.history import text_of
from benchmarks.run_facts import run_facts, warn_if_busy
from benchmarks.speed.floors import Floors, Rates
from benchmarks.speed.parts import SELECTION, laps, selections, watched
from benchmarks.speed.profile_report import show_profile
from benchmarks.speed.shape import ModelShape, shape_of, widest_linear
from benchmarks.speed.stopwatch import Clock, Lap, Stopwatch
from benchmarks.speed.synthetic import grow

MODELS = ("smollm2-135m", "qwen2.5-coder-0.5b")
QUESTION = [{"role": "user", "content": "What was said about the lantern?"}]


@dataclass
class Profile:
    """All laps of one model. "Held": the working set was held; "renewed": it was chosen anew."""

    model: str
    tokens: int
    seen: int
    """Tokens of the past in the working set."""
    chunk: int
    shape: ModelShape
    rates: list[Rates] = field(default_factory=list)
    held: list[Lap] = field(default_factory=list)
    renewed: list[Lap] = field(default_factory=list)
    chunks: list[Lap] = field(default_factory=list)
    plain_held: list[Lap] = field(default_factory=list)
    plain_renewed: list[Lap] = field(default_factory=list)
    plain_chunks: list[Lap] = field(default_factory=list)
    commits: list[float] = field(default_factory=list)
    """Seconds that an observation of ``CHUNKS`` chunks spent in its one commit."""
    missing: list[str] = field(default_factory=list)

    def rate(self, name: str) -> float:
        """The median of a measured rate."""
        return float(statistics.median(getattr(rates, name) for rates in self.rates))


CHUNKS = 4
"""Chunks that one observation has; the first and the last one are not counted."""


def main() -> int:
    """Profile what the command line names; returns 0."""
    asked = _arguments()
    clock = time.thread_time if asked.cpu_time else time.perf_counter
    if asked.cpu_time:
        torch.set_num_threads(1)
    facts = run_facts()
    console = Console(width=None if sys.stdout.isatty() else 100)
    warn_if_busy(console, facts)
    found = []
    for name in asked.model or MODELS:
        with console.status(f"{name}: loading"):
            model = LanguageModel.load(name, **({} if asked.dtype is None else {"dtype": asked.dtype}))
        with console.status(f"{name}: measuring") as status:
            profile = measure(model, asked.tokens, asked.rounds, asked.reply, clock, status.update)
        show_profile(console, profile)
        found.append(profile)
        LanguageModel.unload()
    console.print("  " + ", ".join(f"{key} {value}" for key, value in facts.items()), highlight=False)
    if asked.json is not None:
        record = {"facts": facts, "profiles": [as_json(profile) for profile in found]}
        asked.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def measure(
    model: LanguageModel,
    tokens: int,
    rounds: int,
    reply: int,
    clock: Clock = time.perf_counter,
    tell: Callable[[str], Any] = lambda _: None,
    config: MemoryConfig | None = None,
) -> Profile:
    """Profile a model behind a synthetic history of so many tokens."""
    with tempfile.TemporaryDirectory(prefix="agentmem-bench-") as folder:
        home = DiskHome(Path(folder))
        tell(f"{model.name}: writing a history")
        grow(home, model, "history", [tokens], lambda _: "profiled", config=config)
        with AgentMemory.resume("profiled", model=model, home=home) as memory:
            seen = min(memory.tokens_held, memory.config.budget)
            shape = shape_of(model.binding.model, model.binding.layers, model.layout.bytes_per_token)
            profile = Profile(model.name, memory.tokens_held, seen, memory.config.chunk_tokens, shape)
            floors = Floors(*widest_linear(model.binding.model), clock=clock)
            run = _Rounds(memory, profile, reply, clock)
            run.warm_up()
            for number in range(rounds):
                tell(f"{model.name}: round {number + 1} of {rounds}")
                profile.rates.append(floors.sample())
                run.round(number)
    return profile


class _Rounds:
    """Turns of one open agent, with and without the stopwatch; each is taken back."""

    def __init__(self, memory: AgentMemory, profile: Profile, reply: int, clock: Clock) -> None:
        self._memory = memory
        self._profile = profile
        self._reply = reply
        self._clock = clock

    def warm_up(self) -> None:
        """Touch everything once."""
        self._decode(Stopwatch(self._clock), all_parts=False, tokens=2)
        self._read(Stopwatch(self._clock), 0, all_parts=False)

    def round(self, number: int) -> None:
        """A reply and an observation, each plain and watched."""
        found = self._profile
        for all_parts in (False, True):
            steps = self._decode(Stopwatch(self._clock), all_parts=all_parts, tokens=self._reply)
            held = [lap for lap in steps if not lap.calls.get(SELECTION)]
            renewed = [lap for lap in steps if lap.calls.get(SELECTION)]
            chunks = self._read(Stopwatch(self._clock), number, all_parts=all_parts)
            (found.held if all_parts else found.plain_held).extend(held)
            (found.renewed if all_parts else found.plain_renewed).extend(renewed)
            (found.chunks if all_parts else found.plain_chunks).extend(chunks)

    def _decode(self, watch: Stopwatch, *, all_parts: bool, tokens: int) -> list[Lap]:
        model = self._memory.language_model
        with ExitStack() as stack:
            if all_parts:
                self._profile.missing = stack.enter_context(watched(model, watch))
            else:
                stack.enter_context(laps(watch))
                stack.enter_context(selections(watch))
            self._memory.generate(QUESTION, remember=False, max_new_tokens=tokens, min_new_tokens=tokens)
        return watch.laps[2:]  # the question, and the first step, which is another size than all others

    def _read(self, watch: Stopwatch, number: int, *, all_parts: bool) -> list[Lap]:
        memory = self._memory
        model, before = memory.language_model, memory.checkpoint()
        text = text_of(model.tokenizer, CHUNKS * self._profile.chunk, 100 + number)
        with watched(model, watch) if all_parts else laps(watch):
            memory.observe(text)
            watch.lap()
        memory.rewind(before)
        self._profile.commits.append(watch.laps[-1].seconds.get("store: commit", 0.0))
        return watch.laps[1 : CHUNKS - 1]


def as_json(profile: Profile) -> dict[str, Any]:
    """Everything measured, as plain values."""
    return {
        "model": profile.model,
        "tokens": profile.tokens,
        "seen": profile.seen,
        "shape": vars(profile.shape),
        "rates": [vars(rates) for rates in profile.rates],
        **{
            name: [{"total": lap.total, "seconds": dict(lap.seconds), "calls": dict(lap.calls)} for lap in of]
            for name, of in _laps_of(profile).items()
        },
    }


def _laps_of(profile: Profile) -> dict[str, Sequence[Lap]]:
    names = ("held", "renewed", "chunks", "plain_held", "plain_renewed", "plain_chunks")
    return {name: getattr(profile, name) for name in names}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.profile", description=__doc__)
    parser.add_argument("--model", action="append", help="may be repeated (default: both built-ins)")
    parser.add_argument("--dtype", help="how the weights are held (default: as they are stored)")
    parser.add_argument("--tokens", type=int, default=8_000, help="of history (default: 8000)")
    parser.add_argument("--reply", type=int, default=70, help="tokens decoded in a turn (default: 70)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cpu-time", action="store_true", help="one thread, by its own clock")
    parser.add_argument("--json", type=Path, help="write every lap to this file")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())

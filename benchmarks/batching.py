"""Agents that decode at once: tokens per second of one, of several apart, and of several that share passes.

    python -m benchmarks.batching [--agents 4] [--model qwen2.5-coder-0.5b] [--tokens 8000] [--json]
    python -m benchmarks.batching --cpu-time        on a busy machine: the processor's time, torch on one thread

Each agent has a fork of one synthetic history, and a thread. All read their question first; then the clock starts,
and each decodes so many tokens. The three ways take turns, so that a machine that is busy with something else is
so for all; figures are medians, the ratios those of each round. What the agents said must be the same in all ways.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from agentmem import AgentMemory, LanguageModel
from agentmem.engine.steps import BatchRule
from agentmem.store import DiskHome
from benchmarks.run_facts import run_facts, warn_if_busy
from benchmarks.speed.synthetic import grow

MODEL = "qwen2.5-coder-0.5b"
WAYS = ("one", "apart", "together")
Clock = Callable[[], float]
QUESTION = "Tell me, step by step and in many words, what was said about the lantern. Agent"


class StartingLine:
    """A logits processor that lets all agents begin their second token at once, and notes the time of each."""

    def __init__(self, start: threading.Barrier, clock: Clock) -> None:
        self.times: list[float] = []
        self._start = start
        self._clock = clock

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Change nothing."""
        if not self.times:
            self._start.wait()
        self.times.append(self._clock())
        return scores


def main() -> int:
    """Measure and print; returns 0."""
    asked = _arguments()
    facts, console = run_facts(), Console(width=None if sys.stdout.isatty() else 100)
    model = LanguageModel.load(asked.model, dtype=asked.dtype)
    rule: BatchRule = "always" if asked.always else "exact"
    clock = time.process_time if asked.cpu_time else time.perf_counter
    with tempfile.TemporaryDirectory(prefix="agentmem-bench-") as folder:
        rounds = measure(
            model, Path(folder), asked.agents, asked.tokens, asked.reply, asked.rounds, rule, clock
        )
    record = {"facts": facts, "model": asked.model, **summary(rounds), "agents": asked.agents, "rule": rule}
    record |= {"history": asked.tokens, "reply": asked.reply, "rounds": len(rounds)}
    record["clock"] = "processor" if asked.cpu_time else "wall"
    if asked.json:
        sys.stdout.write(json.dumps(record) + "\n")
    else:
        warn_if_busy(console, facts)
        show(console, record)
    return 0


def measure(
    model: LanguageModel,
    folder: Path,
    agents: int,
    tokens: int,
    reply: int,
    rounds: int,
    rule: BatchRule,
    clock: Clock = time.perf_counter,
) -> list[dict[str, float]]:
    """Tokens per second of each way, for each round; and under "same" the share of replies that agree."""
    home = DiskHome(folder)
    grow(home, model, "history", [tokens], lambda _: "agent-0")
    with ExitStack() as stack:
        first = stack.enter_context(AgentMemory.resume("agent-0", model=model, home=home))
        others = [first.fork(f"agent-{number}") for number in range(1, agents)]
        crew = [first, *(stack.enter_context(other) for other in others)]
        ways: Mapping[str, tuple[Sequence[AgentMemory], BatchRule]] = {
            "one": (crew[:1], rule),
            "apart": (crew, "never"),
            "together": (crew, rule),
        }
        for way in WAYS:  # files are read, kernels and buffers made, likeness tried
            decode(model, *ways[way], min(reply, 8), clock)
        return [_round(model, ways, reply, clock) for _ in range(rounds)]


def _round(
    model: LanguageModel,
    ways: Mapping[str, tuple[Sequence[AgentMemory], BatchRule]],
    reply: int,
    clock: Clock,
) -> dict[str, float]:
    speeds, said = {}, {}
    for way in WAYS:
        speeds[way], said[way] = decode(model, *ways[way], reply, clock)
    same = [apart == together for apart, together in zip(said["apart"], said["together"], strict=True)]
    return {**speeds, "same": sum(same) / len(same)}


def decode(
    model: LanguageModel, crew: Sequence[AgentMemory], rule: BatchRule, reply: int, clock: Clock
) -> tuple[float, list[tuple[int, ...]]]:
    """All at once: tokens per second of all, and what each said. Nothing is remembered."""
    model.batch_steps(rule)
    start = threading.Barrier(len(crew))
    lines = [StartingLine(start, clock) for _ in crew]

    def ask(number: int) -> tuple[int, ...]:
        answer = crew[number].generate(
            [{"role": "user", "content": f"{QUESTION} {number}, begin."}],
            logits_processor=[lines[number]],
            remember=False,
            max_new_tokens=reply,
            min_new_tokens=reply,
            at="2026-01-02T00:00:00+00:00",
        )
        return answer.token_ids

    with ThreadPoolExecutor(len(crew)) as pool:
        said = list(pool.map(ask, range(len(crew))))
    seconds = max(line.times[-1] for line in lines) - min(line.times[0] for line in lines)
    return sum(len(line.times) - 1 for line in lines) / seconds, said


def summary(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Medians over rounds: speeds, ratios within a round, and the share of replies that agree in all."""
    found = {f"{way}_tokens_per_second": statistics.median(r[way] for r in rounds) for way in WAYS}
    for way in WAYS[1:]:
        found[f"{way}_to_one"] = statistics.median(r[way] / r["one"] for r in rounds)
    return {**found, "same_replies": min(r["same"] for r in rounds)}


def show(console: Console, record: Mapping[str, object]) -> None:
    """One row for each way."""
    title = (
        f"{record['model']}: {record['agents']} agents, {record['history']:,} tokens each, {record['rule']}"
    )
    table = Table(title=title)
    for column in ("way", "tokens/s of all", "times one"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for way in WAYS:
        ratio = record.get(f"{way}_to_one")
        table.add_row(
            way, f"{record[f'{way}_tokens_per_second']:.1f}", "" if ratio is None else f"{ratio:.2f}"
        )
    console.print(table)
    console.print(f"  replies that are the same apart and together: {record['same_replies']:.0%}")
    facts = record["facts"]
    assert isinstance(facts, Mapping)
    console.print("  " + ", ".join(f"{key} {value}" for key, value in facts.items()), highlight=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--agents", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=8_000, help="of history, for each agent")
    parser.add_argument("--reply", type=int, default=32, help="tokens that each agent decodes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--always", action="store_true", help="share passes also where the bits may change")
    parser.add_argument(
        "--cpu-time", action="store_true", help="the processor's time, on one thread of torch"
    )
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.threads is not None or asked.cpu_time:
        torch.set_num_threads(1 if asked.cpu_time else asked.threads)
    return asked


if __name__ == "__main__":
    raise SystemExit(main())

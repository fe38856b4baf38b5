"""How soon an agent that is opened again says its first token, against reading its history again.

    python -m benchmarks.first_token                          the default model behind 65,536 tokens
    python -m benchmarks.first_token --tokens 8192 --json first_token.json

The history is synthetic (random keys and values in the store, page cache warm), since forwarding it would take
minutes; the weights are real. *First token* is all from before the resume to the first sampled token of a reply to a
short question. *Reading again* is not done whole: chunks are read behind nothing and at several depths, and their
time is integrated over the length. Both take turns, so that they see the same machine; medians are printed, of the
clock and of milliseconds of computing (all threads added up), which other work on the machine lengthens less. With
random keys the candidates of all heads lie scattered over the whole history, which is the worst case for a first turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from agentmem import AgentMemory, MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.store import DiskHome
from agentmem.store.base import Home
from benchmarks.history import text_of
from benchmarks.run_facts import run_facts, warn_if_busy
from benchmarks.speed.integral import seconds_to_read
from benchmarks.speed.synthetic import grow

MODEL = "qwen2.5-coder-0.5b"
TOKENS = 65_536
PROMISE = 1 / 500
"""At most so much of the time that reading again takes."""
QUESTION = {"role": "user", "content": "What was said about the lantern?"}
DEPTHS = (16, 4, 1)
"""Chunks are read behind nothing, and behind a sixteenth, a quarter and all of the history."""
CLOCKS: Mapping[str, Callable[[], float]] = {"clock": time.perf_counter, "computing": time.process_time}


@dataclass
class Found:
    """Seconds by one of the clocks, one number a round."""

    resume: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)

    def row(self) -> dict[str, float]:
        """Medians in milliseconds, and the median of each round's ratio."""
        ratios = [first / again for first, again in zip(self.first, self.again, strict=True)]
        timed = {name: 1000 * statistics.median(getattr(self, name)) for name in ("resume", "first", "again")}
        return {**timed, "ratio": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}


def measure(
    model: LanguageModel, tokens: int, rounds: int, folder: Path, config: MemoryConfig | None = None
) -> dict[str, Found]:
    """Measure a model behind a history of so many tokens, kept in ``folder``."""
    home = DiskHome(folder)
    depths = sorted({tokens // part for part in DEPTHS})
    grow(home, model, "history", depths, lambda length: f"at-{length}", config=config)
    found = {name: Found() for name in CLOCKS}
    for number in range(rounds + 1):  # the first round's figures count for nothing: first calls of libraries
        resumed = _first_token(model, home, f"at-{tokens}")
        chunks = [_chunk(model, home, length, number, config) for length in (0, *depths)]
        if number:
            for name, figures in found.items():
                figures.resume.append(resumed["resume"][name])
                figures.first.append(resumed["first"][name])
                points = [(middle, seconds[name]) for middle, seconds in chunks]
                again = seconds_to_read(points, tokens)
                assert again is not None, "a chunk is read at both ends"
                figures.again.append(again)
    return found


def _now() -> dict[str, float]:
    return {name: clock() for name, clock in CLOCKS.items()}


def _since(started: Mapping[str, float]) -> dict[str, float]:
    return {name: now - started[name] for name, now in _now().items()}


def _first_token(model: LanguageModel, home: Home, agent: str) -> dict[str, dict[str, float]]:
    """Seconds of the resume alone, and of all up to the first token."""
    found: dict[str, dict[str, float]] = {}

    def sampled(_ids: Any, scores: Any) -> Any:
        found.setdefault("first", _since(started))
        return scores

    started = _now()
    with AgentMemory.resume(agent, model=model, home=home) as memory:
        found["resume"] = _since(started)
        memory.generate([QUESTION], logits_processor=[sampled], max_new_tokens=1, remember=False)
    return found


def _chunk(
    model: LanguageModel, home: Home, length: int, number: int, config: MemoryConfig | None
) -> tuple[float, dict[str, float]]:
    """Where a chunk's middle lies, and the seconds of each of its tokens; the agent is left as it was."""
    name = f"at-{length}" if length else f"empty-{number}"
    with AgentMemory.resume(name, model=model, home=home, config=None if length else config) as memory:
        chunk = memory.config.chunk_tokens
        text = text_of(model.tokenizer, max(4, chunk - chunk // 8), seed=number)
        before = memory.checkpoint() if length else None
        if before is not None:  # checksums are fetched when pages are first read, which is the resume's cost
            memory.observe("Well.")
            memory.rewind(before)
        started = _now()
        read = memory.observe(text).tokens_prefilled
        seconds = _since(started)
        if before is not None:
            memory.rewind(before)
    if not length:
        AgentMemory.delete(name, home=home)
    return length + read / 2, {clock: value / read for clock, value in seconds.items()}


def show(console: Console, tokens: int, rows: Mapping[str, Mapping[str, float]]) -> None:
    """The table, and the verdict."""
    table = Table(title=f"the first token behind {tokens:,} tokens")
    for title in ("by", "resume ms", "first token ms", "reading again ms", "ratio", "of rounds"):
        table.add_column(title, justify="right")
    for name, row in rows.items():
        spread = f"{row['least']:.4f} to {row['most']:.4f}"
        numbers = (f"{row[key]:,.1f}" for key in ("resume", "first", "again"))
        table.add_row(name, *numbers, f"{row['ratio']:.4f}", spread)
    console.print(table)
    kept = rows["clock"]["ratio"] <= PROMISE
    console.print(f"at most {PROMISE:.3f} of reading again, by the clock: {'yes' if kept else 'NO'}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when the promise was not kept."""
    asked = _arguments(arguments)
    console, facts = Console(), run_facts()
    warn_if_busy(console, facts)
    model = LanguageModel.load(asked.model)
    with (
        console.status("measuring"),
        tempfile.TemporaryDirectory(dir=asked.folder, prefix="agentmem-bench-") as folder,
    ):
        found = measure(model, asked.tokens, asked.rounds, Path(folder))
    rows = {name: figures.row() for name, figures in found.items()}
    show(console, asked.tokens, rows)
    console.print(", ".join(f"{key} {value}" for key, value in facts.items()), highlight=False)
    if asked.json is not None:
        record = {"facts": facts, "model": asked.model, "tokens": asked.tokens, "by": rows}
        asked.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return int(rows["clock"]["ratio"] > PROMISE)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.first_token",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default=MODEL, help=f"(default: {MODEL})")
    parser.add_argument("--tokens", type=int, default=TOKENS, help=f"of history (default: {TOKENS:,})")
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--json", type=Path, help="write the medians to this file too")
    parser.add_argument("--folder", type=Path, help="where agents are kept meanwhile (default: the system's)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

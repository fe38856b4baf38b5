"""What opening an agent costs, and its turns and memory after that, against turns and tokens. The model is loaded.

    python -m benchmarks.opening             up to 10,000 turns and 1,000,000 tokens (a quarter of an hour to make them)
    python -m benchmarks.opening --quick     up to 1,000 turns: to see that everything works

The agents are made by a model of two tiny layers, so that what grows with the history shows, and not arithmetic: their
turns, texts, token ids, checksums and digests are as many as any model's. *Resume* is all of ``AgentMemory.resume``,
on the clock and in milliseconds of computing; by the latter it is judged, since other work on the machine does not
lengthen them. *First* and *next* turn are a message of some 20 tokens that is read and committed, *commit* is the
store's part of both. *Memory* is what no file backs, above that of a process that has the model and a small agent:
after opening, and at its peak in a turn. All lengths take turns, so that all see the same machine; medians are
printed. Exits with 1 when a promise was not kept.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM

from agentmem import AgentMemory
from agentmem.engine.model import LanguageModel
from agentmem.store import DiskHome
from benchmarks.history import text_of
from benchmarks.machine import PeakMemory, anonymous_bytes, release_freed
from benchmarks.run_facts import run_facts, warn_if_busy
from benchmarks.timed_store import TimedHome

TOKENIZER = "smollm2-135m"
RESUME_MS = 30.0
MEMORY_MIB = 300.0
SLOWER = 2.0
"""How many times as long a commit may take after the longest history as after the shortest."""
SHORT = "Note {number}: the lantern was sold at the harbour for {number} euros, and nobody asked why."
MIB = 1 << 20


@dataclass(frozen=True)
class Case:
    """An agent of so many turns of so many tokens each."""

    turns: int
    tokens: int

    @property
    def name(self) -> str:
        """Its agent id."""
        return f"{self.turns}-turns-of-{self.tokens}"


CASES = (Case(100, 100), Case(1_000, 100), Case(10_000, 100), Case(250, 4_000))
QUICK = (Case(50, 50), Case(500, 50))


@dataclass
class Figures:
    """Milliseconds of one case, one number a round; MiB from a process of its own."""

    resume: list[float] = field(default_factory=list)
    computing: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    later: list[float] = field(default_factory=list)
    commit: list[float] = field(default_factory=list)
    opened_mib: float | None = None
    turn_mib: float | None = None

    def row(self) -> dict[str, float | None]:
        """The medians, and the memory."""
        timed = {name: statistics.median(getattr(self, name)) for name in ("resume", "computing", "first")}
        later = {"next": statistics.median(self.later), "commit": statistics.median(self.commit)}
        return {**timed, **later, "opened_mib": self.opened_mib, "turn_mib": self.turn_mib}


def tiny_model() -> LanguageModel:
    """Two layers of one head and eight dimensions; the same weights each time."""
    tokenizer: Any = LanguageModel.load(TOKENIZER).tokenizer
    LanguageModel.unload()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=8192,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    return LanguageModel.wrap(model, tokenizer, name="tiny")


def make(model: LanguageModel, home: Path, case: Case) -> None:
    """Give an agent its history. Nothing is synced meanwhile: that would take most of the time."""
    text = text_of(model.tokenizer, case.tokens, seed=3)
    with (
        patch("agentmem.store.log.sync_file"),
        patch("agentmem.store.log.sync_folder"),
        patch.dict("agentmem.store.connection._SETTINGS", {"synchronous": 0}),
        AgentMemory.resume(case.name, model=model, home=home) as memory,
    ):
        for _ in track(range(case.turns), description=f"making {case.name}", transient=True):
            memory.observe(text)


def measure(model: LanguageModel, folder: Path, case: Case, figures: Figures, number: int) -> None:
    """Open it, and run two turns."""
    home = TimedHome(DiskHome(folder))
    started, computed = time.perf_counter(), time.process_time()
    memory = AgentMemory.resume(case.name, model=model, home=home)
    figures.computing.append((time.process_time() - computed) * 1e3)
    figures.resume.append((time.perf_counter() - started) * 1e3)
    with memory:
        for turn, kept in enumerate((figures.first, figures.later)):
            started = time.perf_counter()
            memory.observe(SHORT.format(number=2 * number + turn))
            kept.append((time.perf_counter() - started) * 1e3)
        figures.commit.append(home.clock.take()["commit"] * 1e3)


def probe(folder: str, name: str) -> None:
    """In a process of its own: print how much memory opening and a turn take."""
    model = tiny_model()
    with (
        tempfile.TemporaryDirectory() as elsewhere,
        AgentMemory.resume("x", model=model, home=elsewhere) as other,
    ):
        other.chat("Hello.", max_new_tokens=2)
    release_freed()
    before = anonymous_bytes()
    with PeakMemory() as turn, AgentMemory.resume(name, model=model, home=folder) as memory:
        opened = anonymous_bytes()
        memory.chat("What do you remember?", max_new_tokens=8, remember=False)
    risen = None if opened is None or before is None else (opened - before) / MIB
    sys.stdout.write(json.dumps({"opened_mib": risen, "turn_mib": turn.risen}) + "\n")


def main() -> int:
    """Make, measure, print, judge; returns the exit code."""
    asked = _arguments()
    if asked.probe:
        probe(*asked.probe)
        return 0
    console, facts = Console(), run_facts()
    warn_if_busy(console, facts)
    cases = asked.cases or (QUICK if asked.quick else CASES)
    found = {case: Figures() for case in cases}
    model = tiny_model()
    with tempfile.TemporaryDirectory(dir=asked.folder, prefix="agentmem-bench-") as folder:
        for case in cases:
            make(model, Path(folder), case)
        for number in range(asked.rounds + 1):
            for case in cases:  # the first round's figures count for nothing: first calls of libraries
                measure(model, Path(folder), case, found[case] if number else Figures(), number)
        for case in cases:
            command = [sys.executable, "-m", "benchmarks.opening", "--probe", folder, case.name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            for name, value in json.loads(done.stdout.splitlines()[-1]).items():
                setattr(found[case], name, value)
    rows = [
        {"turns": case.turns, "tokens": case.turns * case.tokens, **figures.row()}
        for case, figures in found.items()
    ]
    promises = judged(rows)
    show(console, rows, promises, facts)
    if asked.json is not None:
        asked.json.write_text(json.dumps({"facts": facts, "rows": rows, "promises": promises}, indent=1))
    return int(not all(promises.values()))


def judged(rows: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """Each promise, and whether it was kept."""
    memory = [row["turn_mib"] for row in rows if row["turn_mib"] is not None]
    return {
        f"resume takes at most {RESUME_MS:.0f} ms at any length": all(
            row["computing"] <= RESUME_MS for row in rows
        ),
        f"memory above the weights is at most {MEMORY_MIB:.0f} MiB": all(mib <= MEMORY_MIB for mib in memory),
        f"the longest history's commit takes at most {SLOWER:.0f} times the shortest's": rows[-1]["commit"]
        <= SLOWER * rows[0]["commit"],
    }


def show(
    console: Console,
    rows: Sequence[Mapping[str, Any]],
    promises: Mapping[str, bool],
    facts: Mapping[str, str],
) -> None:
    """The table."""
    table = Table(title="opening an agent, and the turns after that")
    columns = {
        "resume": "resume ms",
        "computing": "computing ms",
        "first": "first turn ms",
        "next": "next turn ms",
        "commit": "commit ms",
        "opened_mib": "opened MiB",
        "turn_mib": "turn MiB",
    }
    for title in ("turns", "tokens", *columns.values()):
        table.add_column(title, justify="right")
    for row in rows:
        cells = ("-" if row[name] is None else f"{row[name]:.1f}" for name in columns)
        table.add_row(f"{row['turns']:,}", f"{row['tokens']:,}", *cells)
    console.print(table)
    for words, kept in promises.items():
        console.print(f"{words}: {'yes' if kept else 'NO'}")
    console.print(
        f"{facts['cpu']}, {facts['threads']} threads, torch {facts['torch']}, load {facts['load']}."
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.opening", description="What opening an agent costs, at any length."
    )
    parser.add_argument("--rounds", type=int, default=15, help="openings of each agent (default: 15)")
    parser.add_argument("--json", type=Path, help="write everything to this file too")
    parser.add_argument("--folder", type=Path, help="where agents are kept meanwhile (default: the system's)")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument(
        "--cases",
        type=_case,
        nargs="+",
        help="turns x tokens a turn, such as 1000x100 (default: four up to 10000x100)",
    )
    parser.add_argument("--probe", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def _case(text: str) -> Case:
    turns, _, tokens = text.partition("x")
    return Case(int(turns), int(tokens))


if __name__ == "__main__":
    sys.exit(main())

"""What the LangChain adapter costs: a turn through it beside one without, and a long list that is sent again.

    python -m benchmarks.langchain_adapter            both built-in models
    python -m benchmarks.langchain_adapter --quick    small sizes, to see that everything works

Exits with 0 when every promise was kept, 1 when one was not or a measurement failed. With --quick times are not
judged.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from agentmem import LanguageModel
from benchmarks.adapter_lists import Planning, Resending
from benchmarks.adapter_report import SYNTHETIC, Sizes, all_expectations, rows, show
from benchmarks.adapter_turns import SameTurns
from benchmarks.plan import Samples
from benchmarks.report import append_rows, show_end, write_record
from benchmarks.run_facts import run_facts, warn_if_busy
from langchain_agentmem import close_memories

RESULTS = Path(__file__).with_name("results.csv")
MODELS = ("smollm2-135m", "qwen2.5-coder-0.5b")
PROFILED = 5
"""Turns that are looked into, after those that are compared."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit code."""
    asked = _options().parse_args(arguments)
    sizes, samples, facts, console = _sizes(asked), Samples(), run_facts(), Console()
    warn_if_busy(console, facts)
    with _progress(console) as tell:
        for name in sizes.models:
            _measure(name, sizes, samples, tell)
        for length in sizes.planner:
            tell(f"planning {length:,} messages")
            planning = Planning(SYNTHETIC, messages=length, samples=samples)
            for _ in range(5 * sizes.rounds):
                planning.round()
    show(console, sizes, samples)
    show_end(console, samples, facts)
    found = all_expectations(sizes, samples)
    if asked.json is not None:
        write_record(asked.json, samples, facts, found)
    if not asked.quick:
        append_rows(RESULTS, facts, rows(sizes, samples))
    broken = [one for of_model in found.values() for one in of_model if one.met is False]
    return 1 if broken or samples.failed else 0


def _measure(name: str, sizes: Sizes, samples: Samples, tell: Callable[[str], None]) -> None:
    """Everything about one model; a part that fails is noted, and the next one is tried."""

    def say(words: str) -> None:
        tell(f"{name}: {words}")

    with tempfile.TemporaryDirectory(prefix="agentmem-bench-") as folder:
        with _noted(f"{name}: turns", samples):
            say("loading")
            model = LanguageModel.load(name)
            _compare(model, Path(folder), sizes, samples, say)
        with _noted(f"{name}: the list", samples):
            model = LanguageModel.load(name)
            _resend(model, Path(folder), sizes, samples, say)
        close_memories()
    LanguageModel.unload()


def _compare(
    model: LanguageModel, home: Path, sizes: Sizes, samples: Samples, tell: Callable[[str], None]
) -> None:
    warm_up = SameTurns(model, home / "warm-up", history=200, reply=4, samples=Samples())
    with warm_up.built() as reference:
        warm_up.round(reference, 0)
    turns = SameTurns(model, home, history=sizes.history, reply=sizes.reply, samples=samples)
    tell(f"reading {sizes.history:,} tokens")
    with turns.built() as reference:
        for number in range(sizes.rounds):
            tell(f"the same turn three ways, round {number + 1} of {sizes.rounds}")
            turns.round(reference, number)
        tell("where the adapter's time goes")
        for _ in range(PROFILED):
            turns.profiled()


def _resend(
    model: LanguageModel, home: Path, sizes: Sizes, samples: Samples, tell: Callable[[str], None]
) -> None:
    thread = Resending(model, home, messages=sizes.messages, reply=sizes.short_reply, samples=samples)
    tell(f"talking until there are {sizes.messages} messages")
    thread.grow()
    for _ in range(sizes.resends):
        tell(f"sending {sizes.messages} messages again")
        thread.turn()


@contextmanager
def _noted(what: str, samples: Samples) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001  # noted, and the exit code says so
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        samples.failed.append(f"{what}: {type(error).__name__}: {error} ({where})")


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str], None]]:
    """A line that says what is being done."""
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True
    ) as progress:
        task = progress.add_task("starting", total=None)
        yield lambda words: progress.update(task, description=words)


def _sizes(asked: argparse.Namespace) -> Sizes:
    quick = asked.quick
    return Sizes(
        models=asked.model or (MODELS[:1] if quick else MODELS),
        rounds=asked.rounds or (1 if quick else 12),
        history=200 if quick else 2_000,
        reply=8 if quick else 64,
        messages=12 if quick else 100,
        short_reply=4 if quick else 12,
        resends=1 if quick else 3,
        planner=(10, 40) if quick else (100, 1_000),
        times_count=not quick,
    )


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.langchain_adapter", description="Measure what the LangChain adapter costs."
    )
    parser.add_argument(
        "--model", action="append", help="a model's name; may be repeated (default: both built-ins)"
    )
    parser.add_argument("--rounds", type=_number, help="turns that are compared (default: 12)")
    parser.add_argument("--json", type=Path, help="write everything to this file too")
    parser.add_argument("--quick", action="store_true", help="small sizes; nothing is added to results.csv")
    return parser


def _number(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


if __name__ == "__main__":
    sys.exit(main())

"""What is recalled, task by length by arm, with intervals: one command for each suite, resumable when interrupted.

    python -m benchmarks.recall headline                 a first look in half an hour on two cores
    python -m benchmarks.recall needles --limit 2        two histories of each length
    python -m benchmarks.recall passkey --selector default,exact,full --lengths 8K,16K
    python -m benchmarks.recall --list                   the suites, tasks and arms there are

Finished cells are kept in HOME; the same command again goes on behind them. Exits with 0 when every target that could
be judged was met, 1 when a cell failed, 2 when it was asked for what there is not, 3 when a target was missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_path
from rich.console import Console

from agentmem import MemoryConfig
from agentmem.engine.catalog import DEFAULT_MODEL
from agentmem.engine.model import LanguageModel
from agentmem.errors import AgentMemError
from agentmem.memory.modes import MODES
from agentmem.memory.selectors import SELECTORS
from benchmarks.recall.arms import DEFAULT, DoesNotFitError, budgeted, make_arm
from benchmarks.recall.cells import Journal
from benchmarks.recall.evidence import EvidenceMeasure
from benchmarks.recall.framing import frame_for
from benchmarks.recall.headline import exit_code, verdicts
from benchmarks.recall.plan import Histories, Job, Slice, jobs
from benchmarks.recall.results import Results
from benchmarks.recall.running import Options, Runner
from benchmarks.recall.screen import Bars
from benchmarks.recall.suites import SUITES, changed, slices_of
from benchmarks.recall.tables import show, write_json
from benchmarks.recall.tasks import TASKS
from benchmarks.run_facts import run_facts, warn_if_busy

WIDTH = 160
"""Columns of the tables where there is no terminal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite that the command line asks for; returns the exit code."""
    asked = _parser().parse_args(arguments)
    console = _console()
    if asked.list or asked.suite is None:
        _list(console)
        return 0 if asked.list else 2
    try:
        slices = _slices(asked)
        base = budgeted(MemoryConfig(**json.loads(asked.config)), asked.budget)
        if asked.plot is not None:
            _check_plots()
        model = LanguageModel.load(asked.model, device=asked.device, dtype=asked.dtype)
        _check_arms(slices, base, model)
        todo = list(jobs(slices, _histories(slices, base, model, asked.seed)))
    except (AgentMemError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return _run(asked, console, todo, base, model)


def _run(
    asked: argparse.Namespace,
    console: Console,
    todo: Sequence[Job],
    base: MemoryConfig,
    model: LanguageModel,
) -> int:
    facts = {
        **run_facts(),
        "model": model.name,
        "suite": asked.suite,
        "seed": asked.seed,
        "budget": base.budget,
    }
    warn_if_busy(console, facts)
    options = Options(
        home=asked.home / "agents",
        base=base,
        device=asked.device,
        dtype=asked.dtype,
        keep=asked.keep,
        seconds=None if asked.minutes is None else 60 * asked.minutes,
    )
    with Bars(console, len(todo)) as bars:
        runner = Runner(
            model, options, Journal(asked.home / "cells.jsonl"), bars, EvidenceMeasure(asked.seed)
        )
        cells, left = runner.run(todo)
    results = Results(cells)
    found = verdicts(results, model.binding.trained_length)
    show(console, results, found, left)
    console.print("  " + ", ".join(f"{key} {value}" for key, value in facts.items()), highlight=False)
    if asked.json is not None:
        write_json(asked.json, results, found, facts, left)
    if asked.plot is not None:
        _draw(console, results, asked.plot)
    return exit_code(results, found)


def _slices(asked: argparse.Namespace) -> tuple[Slice, ...]:
    """What the suite's name and the options make of it. Raises ValueError."""
    return changed(
        slices_of(asked.suite, TASKS),
        arms=asked.selector,
        lengths=asked.lengths,
        histories=asked.limit,
        questions=asked.questions,
        restart=asked.restart,
        rank=asked.rank,
        evidence=asked.evidence,
    )


def _check_arms(slices: Sequence[Slice], base: MemoryConfig, model: LanguageModel) -> None:
    """Raise ConfigError now, rather than in each cell, for an arm that is not there."""
    for arm in dict.fromkeys(arm for one in slices for arm in one.arms):
        with suppress(DoesNotFitError):
            make_arm(arm, base, min(tokens for one in slices for tokens in one.lengths), model)


def _histories(slices: Sequence[Slice], base: MemoryConfig, model: LanguageModel, seed: int) -> Histories:
    def count_tokens(text: str) -> int:
        return len(model.tokenizer(text, add_special_tokens=False)["input_ids"])

    wanted = {one.task: TASKS[one.task] for one in slices}
    return Histories(wanted, frame_for(base, count_tokens), seed, count_tokens)


def _console() -> Console:
    """The terminal; a file or a pipe gets lines wide enough for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def _check_plots() -> None:
    """Raise MissingExtraError before the run rather than after it."""
    import benchmarks.recall.plots  # noqa: F401, PLC0415  # an optional dependency


def _draw(console: Console, results: Results, folder: Path) -> None:
    from benchmarks.recall.plots import draw  # noqa: PLC0415  # an optional dependency

    for path in draw(results, folder):
        console.print(f"  drawn: {path}", highlight=False)


def _list(console: Console) -> None:
    for name, suite in SUITES.items():
        console.print(f"  {name:14} {suite.words}", highlight=False)
    console.print(f"  tasks: {', '.join(sorted(TASKS))}", highlight=False)
    console.print(f"  arms: {', '.join((DEFAULT, *MODES, *SELECTORS))}", highlight=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recall", description="Measure what is recalled."
    )
    parser.add_argument("suite", nargs="?", help="a suite's or a task's name; see --list")
    parser.add_argument("--list", action="store_true", help="print the suites, tasks and arms there are")
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"a model's name (default: {DEFAULT_MODEL})")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument(
        "--selector",
        type=_names,
        help="arms, with commas between them: selectors, modes, default, full, window",
    )
    parser.add_argument("--budget", type=_length, help="tokens of the past a step may see (default: 2112)")
    parser.add_argument("--config", default="{}", help="MemoryConfig options of every arm, as JSON")
    parser.add_argument("--lengths", type=_lengths, help="tokens of history, such as 4K,16K (K: 1,000)")
    parser.add_argument("--limit", type=_length, help="histories of each task and length")
    parser.add_argument("--questions", type=_length, help="questions of each history")
    parser.add_argument(
        "--restart", choices=("never", "ask", "compare"), help="ask in a new process, or in both"
    )
    parser.add_argument(
        "--rank", action=argparse.BooleanOptionalAction, help="rank choices by log-probability"
    )
    parser.add_argument(
        "--evidence", action=argparse.BooleanOptionalAction, help="measure which blocks are chosen"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the histories (default: 0)")
    parser.add_argument("--minutes", type=float, help="begin no cell after so many minutes")
    parser.add_argument("--json", type=Path, help="write everything to this file too")
    parser.add_argument("--plot", type=Path, help="draw pictures into this folder")
    parser.add_argument("--home", type=Path, default=user_cache_path("agentmem") / "recall",
                        help="where finished cells, and the agents meanwhile, are kept")  # fmt: skip
    parser.add_argument("--keep", action="store_true", help="keep the agents")
    return parser


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("give at least one name")
    return list(dict.fromkeys(names))


def _lengths(text: str) -> list[int]:
    return [_length(part) for part in text.split(",")]


def _length(text: str) -> int:
    """A positive number; K stands for 1,000."""
    plain = text.strip().upper()
    try:
        number = 1_000 * int(plain[:-1]) if plain.endswith("K") else int(plain)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number such as 8000 or 8K")
    return number


if __name__ == "__main__":
    sys.exit(main())

"""What is recalled, task by length by arm, with intervals: one command for each suite, resumable when interrupted.

    python -m benchmarks.recall headline                 a first look in half an hour on two cores
    python -m benchmarks.recall needles --limit 2        two histories of each length
    python -m benchmarks.recall passkey --selector default,exact,full --lengths 8K,16K
    python -m benchmarks.recall long --workers 4         four processes share the cells
    python -m benchmarks.recall --list                   the suites, tasks and arms there are

Finished cells are kept in HOME; the same command again goes on behind them, and several at once share what is left.
Exits with 0 when every target that could be judged was met, 1 when a cell failed, 2 when it was asked for what there
is not, 3 when a target was missed, 4 when none was but other processes are still running some of the cells.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from agentmem import MemoryConfig
from agentmem.engine.model import LanguageModel
from agentmem.errors import AgentMemError
from agentmem.memory.modes import MODES
from agentmem.memory.selectors import SELECTORS
from benchmarks.recall.arms import DEFAULT, DoesNotFitError, budgeted, make_arm
from benchmarks.recall.cells import Cell, Left
from benchmarks.recall.command_line import console_of, parser
from benchmarks.recall.evidence import EvidenceMeasure
from benchmarks.recall.framing import frame_for
from benchmarks.recall.headline import exit_code, verdicts
from benchmarks.recall.journal import Journal
from benchmarks.recall.origin import Origin
from benchmarks.recall.plan import Histories, Job, Slice, jobs
from benchmarks.recall.results import Results
from benchmarks.recall.running import Options, Runner
from benchmarks.recall.screen import Bars
from benchmarks.recall.suites import SUITES, changed, slices_of
from benchmarks.recall.tables import show, show_left, write_json
from benchmarks.recall.tasks import TASKS
from benchmarks.recall.workers import Crew, attend, stop_with_parent, threads_each
from benchmarks.run_facts import run_facts, warn_if_busy

ELSEWHERE = 4
INTERRUPTED = 130


@dataclass(frozen=True)
class Plan:
    """What a command line comes to."""

    todo: Sequence[Job]
    base: MemoryConfig
    model: LanguageModel

    @property
    def origin(self) -> Origin:
        """What its cells are measured with."""
        return Origin.of(self.model, self.base)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite that the command line asks for; returns the exit code."""
    try:
        return _main(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on behind the finished cells", file=sys.stderr)
        return INTERRUPTED


def _main(given: Sequence[str]) -> int:
    asked = parser().parse_args(given)
    console = console_of()
    if asked.list or asked.suite is None:
        _list(console)
        return 0 if asked.list else 2
    if asked.worker:
        stop_with_parent()
    try:
        journal = Journal(asked.home / "cells.jsonl")
        plan = _plan(asked)
    except (AgentMemError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return _measure(asked, given, console, plan, journal)


def _plan(asked: argparse.Namespace) -> Plan:
    """Raises AgentMemError and ValueError, before anything is run or written."""
    slices = _slices(asked)
    base = budgeted(MemoryConfig(**json.loads(asked.config)), asked.budget)
    if asked.plot is not None:
        _check_plots()
    model = LanguageModel.load(asked.model, device=asked.device, dtype=asked.dtype)
    _check_arms(slices, base, model)
    return Plan(list(jobs(slices, _histories(slices, base, model, asked.seed))), base, model)


def _measure(
    asked: argparse.Namespace, given: Sequence[str], console: Console, plan: Plan, journal: Journal
) -> int:
    """Run the plan, here or in several workers, and show what was found."""
    facts = {
        **run_facts(),
        "model": plan.model.name,
        "suite": asked.suite,
        "seed": asked.seed,
        "budget": plan.base.budget,
    }
    origin, deaths = plan.origin, list[str]()
    if asked.worker:
        _run(asked, console, plan, journal)
        return 0
    warn_if_busy(console, facts)
    if asked.workers == 1:
        cells, left = _run(asked, console, plan, journal)
    else:
        facts.update(workers=str(asked.workers), threads=str(threads_each(asked.workers)))
        cells, left, deaths = _share(asked, given, console, plan, journal)
    for death in deaths:
        print(f"error: {death}", file=sys.stderr)
    results = Results(cells)
    found = verdicts(results, origin.trained_length)
    show(console, results, found)
    show_left(console, left)
    console.print("  " + ", ".join(f"{key} {value}" for key, value in facts.items()), highlight=False)
    if asked.json is not None:
        write_json(asked.json, results, found, facts, left.cells)
    if asked.plot is not None:
        _draw(console, results, asked.plot)
    return 1 if deaths else exit_code(results, found) or (ELSEWHERE if left.elsewhere else 0)


def _run(
    asked: argparse.Namespace, console: Console, plan: Plan, journal: Journal
) -> tuple[list[Cell], Left]:
    """Run the plan in this process."""
    with Bars(console, len(plan.todo)) as bars:
        return _runner(asked, plan, journal, bars).run(plan.todo)


def _share(
    asked: argparse.Namespace, given: Sequence[str], console: Console, plan: Plan, journal: Journal
) -> tuple[list[Cell], Left, list[str]]:
    """Run the plan in several processes, and wait for them."""
    with Bars(console, len(plan.todo)) as bars:
        runner = _runner(asked, plan, journal, bars)
        keys = [runner.key(job) for job in plan.todo]
        with Crew([*given, "--worker"], asked.workers) as crew:
            return attend(crew, journal, keys, bars)


def _runner(asked: argparse.Namespace, plan: Plan, journal: Journal, bars: Bars) -> Runner:
    options = Options(
        home=asked.home / "agents",
        base=plan.base,
        device=asked.device,
        dtype=asked.dtype,
        keep=asked.keep,
        seconds=None if asked.minutes is None else 60 * asked.minutes,
    )
    return Runner(plan.model, options, journal, bars, EvidenceMeasure(asked.seed))


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


if __name__ == "__main__":
    sys.exit(main())

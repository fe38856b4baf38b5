"""agentmem beside its peers: reading, decoding, resuming, memory; each promise of speed judged in one command.

    python -m benchmarks.speed                                    a first look: 15 minutes on two quiet cores
    python -m benchmarks.speed --peer transformers llamacpp       beside llama.cpp too (built once, see the error)
    python -m benchmarks.speed long --peer transformers llamacpp  a million tokens as well (14 GB of disk)

Exits with 0 when every promise that could be judged is kept, 1 when one is not, 2 when a measurement failed.
Finished cells are kept: the same command goes on where it stopped, unless code, versions or machine changed.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.run_facts import run_facts, warn_if_busy
from benchmarks.speed.cells import CellKey, Cells, View
from benchmarks.speed.command_line import Asked, parse
from benchmarks.speed.judge import Judge, Verdict
from benchmarks.speed.plan import LLAMA, Step, ours, steps
from benchmarks.speed.report import append_csv, checks, rows_of, show
from benchmarks.speed.rpc import WorkerError
from benchmarks.speed.running import Outcome, Rounds
from benchmarks.speed.setting import setting_of
from benchmarks.speed.sides import Sides

RESULTS = Path(__file__).parents[1] / "results.csv"
SPARE = 1.15
"""Disk that a history takes, in multiples of its keys and values."""


def main() -> int:
    """Run what the command line asks for; returns the exit code."""
    asked = parse()
    before = signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # histories are removed too
    try:
        return _run(asked)
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(asked: Asked) -> int:
    """All models, one after the other, while no other run measures into the same file."""
    console = Console(width=None if sys.stdout.isatty() else 130)
    facts = run_facts()
    warn_if_busy(console, facts)
    with ExitStack() as stack:
        lock = FileLock(asked.cells.with_name(f"{asked.cells.name}.lock"))
        asked.cells.parent.mkdir(parents=True, exist_ok=True)
        try:
            stack.enter_context(lock.acquire(timeout=0))
        except Timeout:
            console.print(f"another run is measuring into {asked.cells}: wait for it, or name other --cells")
            return 2
        cells = Cells(asked.cells)
        deadline = time.monotonic() + 60 * asked.minutes
        codes = [_one_model(console, asked, name, cells, facts, deadline) for name in asked.models]
    return max(codes)


def _one_model(
    console: Console, asked: Asked, model: str, cells: Cells, facts: Mapping[str, str], deadline: float
) -> int:
    """Measure, show and judge one model; returns its exit code."""
    todo = steps(asked.weights, asked.peers, asked.sizes, long=asked.long, wanted=asked.wanted)
    setting = setting_of(facts, asked.sizes)
    rounds = Rounds(
        todo, asked.runs, cells, lambda step, run: _key(setting, model, step, run), deadline=deadline
    )
    with (
        tempfile.TemporaryDirectory(dir=asked.folder, prefix="agentmem-bench-") as folder,
        Sides(
            model,
            Path(folder),
            context=max([step.length for step in todo if step.side == LLAMA], default=0),
            llama_python=asked.llama_python,
            gguf=asked.gguf,
        ) as sides,
    ):
        try:
            infos = {side: _info(cells, setting, model, side, sides) for side in _sides(todo)}
            _check_disk(rounds, infos, Path(folder))
        except (WorkerError, OSError) as error:
            console.print(f"{model}: {error}", highlight=False)
            return 2
        outcome = _watched(console, rounds, sides, model)
    view = View(cells, setting, model, asked.runs)
    own = [ours(one) for one in asked.weights]
    judges = {side: Judge(view, side, asked.sizes, infos[side]) for side in own if side in infos}
    verdicts = {side: list(judge.verdicts()) for side, judge in judges.items()}
    show(console, view, verdicts)
    _show_end(console, judges, view, outcome, facts, infos)
    if asked.plot is not None:
        from benchmarks.speed.plots import draw  # noqa: PLC0415  # matplotlib is an extra

        for path in draw(view, asked.plot):
            console.print(f"  drawn: {path}", highlight=False)
    if asked.json is not None:
        _write_json(asked.json, view, verdicts, outcome, facts, infos)
    if not asked.quick:
        append_csv(RESULTS, facts, view, str(infos.get(LLAMA, {}).get("version", "")))
    return _code(verdicts, outcome)


def _info(cells: Cells, setting: str, model: str, side: str, sides: Sides) -> Mapping[str, Any]:
    """What a side says of itself: asked once, so that a finished run needs no worker."""
    key = CellKey(setting, model, side, "info", 0, 0)
    found = cells.get(key)
    if found is None:
        found = sides.info(side)
        cells.add(key, found)
    return found


def _sides(todo: Sequence[Step]) -> list[str]:
    return list(dict.fromkeys(step.side for step in todo))


def _code(verdicts: Mapping[str, Sequence[Verdict]], outcome: Outcome) -> int:
    if outcome.failed:
        return 2
    return int(any(one.met is False for of_side in verdicts.values() for one in of_side))


def _watched(console: Console, rounds: Rounds, sides: Sides, model: str) -> Outcome:
    """Run with a progress bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(model, total=None)
        return rounds.run(
            sides,
            lambda words, done, total: progress.update(
                task, description=f"{model}: {words}", completed=done, total=total
            ),
        )


def _check_disk(rounds: Rounds, infos: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Raise OSError unless our longest history fits the disk: it is better known before than after an hour."""
    missing = [step for _, step, _ in rounds.missing() if step.side.startswith("agentmem")]
    longest = max((step.length for step in missing), default=0)
    sizes = [int(info["kv_bytes"]) for side, info in infos.items() if side.startswith("agentmem")]
    needed, free = int(SPARE * longest * max(sizes, default=0)), shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"a history of {longest:,} tokens takes {needed / 1e9:.1f} GB, and {folder} has "
            f"{free / 1e9:.1f} GB left; name another place with --folder, or shorter --lengths"
        )


def _show_end(
    console: Console,
    judges: Mapping[str, Judge],
    view: View,
    outcome: Outcome,
    facts: Mapping[str, str],
    infos: Mapping[str, Mapping[str, Any]],
) -> None:
    """Checks of the method, what failed or was left, and what all of it ran on."""
    for judge in list(judges.values())[:1]:
        for line in checks(judge, view.sides()):
            console.print(f"  check: {line}", highlight=False)
    for line in outcome.failed:
        console.print(f"  failed: {line}", highlight=False)
    if outcome.late:
        console.print(f"  {outcome.late} cells were left since time was up; the same command goes on")
    if LLAMA in infos:
        about = infos[LLAMA]
        console.print(
            f"  llama.cpp {about['version']}, {about['weights']}, {about['features']}", highlight=False
        )
    if any(not side.endswith("bf16") for side in judges):
        console.print(
            "  quantised weights count only with their recall: python -m benchmarks.recall", highlight=False
        )
    console.print("  " + ", ".join(f"{key} {value}" for key, value in facts.items()), highlight=False)


def _write_json(
    path: Path,
    view: View,
    verdicts: Mapping[str, Sequence[Verdict]],
    outcome: Outcome,
    facts: Mapping[str, str],
    infos: Mapping[str, Mapping[str, Any]],
) -> None:
    """Add one model's figures to a file of several."""
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    record[view.model] = {
        "facts": dict(facts),
        "sides": {side: dict(info) for side, info in infos.items()},
        "figures": [asdict(row) for row in rows_of(view)],
        "verdicts": {
            side: [{**asdict(one), "value": one.value, "met": one.met} for one in of_side]
            for side, of_side in verdicts.items()
        },
        "failed": outcome.failed,
        "left": outcome.late,
    }
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _key(setting: str, model: str, step: Step, run: int) -> CellKey:
    return CellKey(setting, model, step.side, step.what, step.length, run)


if __name__ == "__main__":
    raise SystemExit(main())

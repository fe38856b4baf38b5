"""Tables and verdicts of finished cells; nothing is run, and no model is loaded.

    python -m benchmarks.recall.report FOLDER                       all that a run's --home holds
    python -m benchmarks.recall.report a.jsonl b.jsonl --task passkey --lengths 16K,32K
    python -m benchmarks.recall.report FOLDER --default two-stage           judge another arm
    python -m benchmarks.recall.report FOLDER --compact OUT.jsonl           2 KB a cell, the same tables

Exits with 0 when every target that could be judged was met, 1 when a cell failed, 2 when it was asked for what there
is not, 3 when a target was missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from agentmem.errors import AgentMemError
from benchmarks.recall.arms import DEFAULT
from benchmarks.recall.cells import Cell
from benchmarks.recall.command_line import console_of, length, lengths, names
from benchmarks.recall.compact import to_line
from benchmarks.recall.gathered import GatherError, Setting, Wanted, newest, of_one_setting, read_cells
from benchmarks.recall.headline import exit_code, verdicts
from benchmarks.recall.origin import Origin
from benchmarks.recall.results import Results
from benchmarks.recall.tables import show, write_json

TRAINED = 32_768
"""Tokens the model was trained for, where cells do not say: those of the default model."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what the cells of the files say; returns the exit code."""
    asked = _parser().parse_args(arguments)
    try:
        cells, old = _cells(asked)
        draw = _drawing() if asked.plot is not None else None
    except (GatherError, AgentMemError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console, results = console_of(), Results(cells, asked.default)
    found = verdicts(results, _trained(asked, cells))
    show(console, results, found)
    facts = {"cells": str(len(cells)), "setting": str(Setting.of(cells[0])), "default": asked.default}
    _say(console, facts, old)
    if asked.json is not None:
        write_json(asked.json, results, found, facts, 0)
    if asked.compact is not None:
        asked.compact.write_text("".join(to_line(cell) + "\n" for cell in cells), encoding="ascii")
    if draw is not None:
        for path in draw(results, asked.plot):
            console.print(f"  drawn: {path}", highlight=False)
    return exit_code(results, found)


def _cells(asked: argparse.Namespace) -> tuple[list[Cell], int]:
    """The cells that are asked for, and how many are left out since there are newer ones. Raises GatherError."""
    config = None if asked.config is None else json.loads(asked.config)
    wanted = Wanted(asked.model, asked.device, asked.dtype, asked.budget, config)
    there = of_one_setting(read_cells(asked.files), wanted)
    cells = newest(there)
    old = len(there) - len(cells)
    for option, values, key in (
        ("--task", asked.task, lambda cell: cell.key.task),
        ("--lengths", asked.lengths, lambda cell: cell.key.tokens),
        ("--arms", asked.arms, lambda cell: cell.key.arm),
    ):
        cells = _only(cells, option, values, key)
    arms = list(dict.fromkeys(cell.key.arm for cell in cells))
    if asked.default not in arms and asked.default != DEFAULT:
        raise GatherError(f"no cell of the arm {asked.default!r}; there are: {', '.join(arms)}")
    return cells, old


def _only(
    cells: list[Cell], option: str, values: Sequence[Any] | None, key: Callable[[Cell], Any]
) -> list[Cell]:
    """The cells with one of these values. Raises GatherError, naming those there are, for one that none has."""
    there = list(dict.fromkeys(key(cell) for cell in cells))
    missing = [value for value in values or () if value not in there]
    if missing:
        known = ", ".join(map(str, there)) or "none"
        raise GatherError(f"no cell of {option} {', '.join(map(str, missing))}; there are: {known}")
    return cells if values is None else [cell for cell in cells if key(cell) in values]


def _trained(asked: argparse.Namespace, cells: Sequence[Cell]) -> int:
    """What the command says, else what the cells say, else the default model's."""
    if asked.trained is not None:
        return int(asked.trained)
    origin = Origin.read(cells[0])
    return TRAINED if origin is None else origin.trained_length


def _drawing() -> Callable[[Results, Path], list[Path]]:
    """Raises MissingExtraError."""
    from benchmarks.recall.plots import draw  # noqa: PLC0415  # an optional dependency

    return draw


def _say(console: Console, facts: Mapping[str, str], old: int) -> None:
    if old:
        console.print(f"  left out, since histories or arms have changed since, or tried again: {old} cells")
    console.print("  " + ", ".join(f"{key} {value}" for key, value in facts.items()), highlight=False)


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m benchmarks.recall.report", description="Tables and verdicts of finished cells."
    )
    found.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="cells.jsonl files, or their folders"
    )
    found.add_argument("--task", type=names, help="tasks, with commas between them")
    found.add_argument("--lengths", type=lengths, help="tokens of history, such as 4K,16K (K: 1,000)")
    found.add_argument("--arms", type=names, help="arms, with commas between them")
    found.add_argument("--default", default=DEFAULT, metavar="ARM",
                       help="the arm that is judged and compared with the others (default: default)")  # fmt: skip
    found.add_argument("--trained", type=length,
                       help="tokens the model was trained for (default: as the cells say, else 32768)")  # fmt: skip
    for option in ("model", "device", "dtype"):
        found.add_argument(f"--{option}", help=f"cells of this {option}, where there are several")
    found.add_argument("--budget", type=length, help="cells of this budget, where there are several")
    found.add_argument(
        "--config", help="cells of these MemoryConfig options, as JSON, where there are several"
    )
    found.add_argument("--json", type=Path, help="write everything to this file too")
    found.add_argument("--plot", type=Path, help="draw pictures into this folder")
    found.add_argument("--compact", type=Path, help="write the cells to this file without their texts")
    return found


if __name__ == "__main__":
    sys.exit(main())

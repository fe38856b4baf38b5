"""Evidence layer by layer and KV head by KV head, from the finished cells of a run.

    python -m benchmarks.recall.evidence_heads cells.jsonl [--arm default] [--rows evidence.jsonl]

Prints, and writes as JSON lines; measures nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.recall.arms import DEFAULT
from benchmarks.recall.cells import Cell
from benchmarks.recall.held import RULES, evidence_of
from benchmarks.recall.journal import Journal
from benchmarks.recall.results import Results, Where

FIGURES = ("coverage", "any", "all")


def evidence_rows(cells: Sequence[Cell]) -> Iterator[dict[str, Any]]:
    """One flat row for each cell, layer, KV head (None: its heads together) and rule: means over the questions."""
    for cell in cells:
        found = evidence_of(cell)
        for place in (*found.get("heads", ()), *found.get("layers", ())):
            for rule, figures in place["rules"].items():
                yield {
                    **asdict(cell.key),
                    "questions": len(found["questions"]),
                    "layer": place["layer"],
                    "head": place.get("head"),
                    "evidence_mass": place.get("wanted", {}).get("mass"),
                    "rule": rule,
                    **figures,
                }


def head_means(cells: Sequence[Cell], figure: str) -> dict[tuple[int, int], dict[str, float]]:
    """A figure by (layer, KV head), then by rule: the mean over all questions that have it."""
    sums: dict[tuple[int, int], dict[str, float]] = {}
    total = 0
    for cell in cells:
        found = evidence_of(cell)
        asked = sum(figure in row["rules"]["chosen"]["heads"] for row in found.get("questions", ()))
        total += asked
        for row in found.get("heads", ()) if asked else ():
            place = sums.setdefault((row["layer"], row["head"]), dict.fromkeys(RULES, 0.0))
            for rule in RULES:
                place[rule] += asked * row["rules"][rule][figure]
    return {place: {rule: value / total for rule, value in by.items()} for place, by in sums.items()}


def show_heads(console: Console, results: Results, where: Where, arm: str) -> None:
    """Print coverage and hits of a place and arm, a row for each layer; nothing where it was not measured."""
    cells = list(results.at(where, arm))
    for figure in FIGURES:
        found = head_means(cells, figure)
        if found:
            title = f"{where.task} {where.tokens:,} {arm}, {figure}, %: {' / '.join(RULES)}"
            console.print(_table(title, found))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables of a journal; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recall.evidence_heads", description="Evidence by layer and KV head."
    )
    parser.add_argument("journal", type=Path, help="the cells.jsonl of a run")
    parser.add_argument("--arm", default=DEFAULT, help=f"whose layers are shown (default: {DEFAULT})")
    parser.add_argument("--rows", type=Path, help="write every row to this file, as JSON lines")
    asked = parser.parse_args(arguments)
    if not asked.journal.is_file():
        print(f"error: there is no {asked.journal}; give the cells.jsonl of a run", file=sys.stderr)
        return 2
    console, results = Console(), Results(Journal(asked.journal))
    for where in results.wheres:
        show_heads(console, results, where, asked.arm)
    if asked.rows is not None:
        lines = [json.dumps(row) + "\n" for row in evidence_rows(results.cells)]
        asked.rows.write_text("".join(lines), encoding="utf-8")
    return 0


def _table(title: str, found: Mapping[tuple[int, int], Mapping[str, float]]) -> Table:
    heads = sorted({head for _, head in found})
    table = Table(title=title, title_justify="left")
    for name in ("layer", *(f"KV head {head}" for head in heads)):
        table.add_column(name, justify="right")
    for layer in sorted({layer for layer, _ in found}):
        places = [found[layer, head] for head in heads if (layer, head) in found]
        table.add_row(str(layer), *(" / ".join(f"{100 * by[rule]:.0f}" for rule in RULES) for by in places))
    return table


if __name__ == "__main__":
    sys.exit(main())

"""Evidence as tables: coverage beside `exact` and `random`, whether the answer's blocks are chosen, layer by layer.

    python -m benchmarks.recall.evidence_tables cells.jsonl [--arm default] [--rows evidence.jsonl]

Prints what finished cells hold; measures nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.recall.arms import DEFAULT
from benchmarks.recall.cells import Journal
from benchmarks.recall.evidence import RULES
from benchmarks.recall.evidence_results import (
    evidence_rows,
    evidence_scores,
    evidence_verdicts,
    head_means,
    spread,
)
from benchmarks.recall.results import Results, Where
from benchmarks.recall.statistics import Interval

_HITS = (
    ("head: any", "heads", "any"),
    ("head: all", "heads", "all"),
    ("layer: all", "layers", "all"),
    ("layer: recall@5", "layers", "recall@5"),
    ("layer: nDCG", "layers", "ndcg"),
    ("layer: MRR", "layers", "mrr"),
    ("union: all", "union", "all"),
    ("union: recall@5", "union", "recall@5"),
    ("union: nDCG", "union", "ndcg"),
    ("union: MRR", "union", "mrr"),
)
"""Column, scope, figure."""


def show_evidence(console: Console, results: Results) -> None:
    """Print coverage and hits of every place and arm that was measured; nothing when none was."""
    _show_coverage(console, results)
    _show_hits(console, results)


def show_layers(console: Console, results: Results, where: Where, arm: str) -> None:
    """Print coverage layer by layer and head by head: chosen, exact, random."""
    found = head_means(results, where, arm)
    if not found:
        return
    heads = sorted({head for _, head in found})
    title = f"{where.task} {where.tokens:,} {arm}: coverage of evicted mass, %, {' / '.join(RULES)}"
    table = _table(title, ("layer", *(f"KV head {head}" for head in heads)), left=0)
    for layer in sorted({layer for layer, _ in found}):
        places = [found.get((layer, head)) for head in heads]
        cells = ["" if by is None else " / ".join(f"{100 * by[rule]:.1f}" for rule in RULES) for by in places]
        table.add_row(str(layer), *cells)
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables of a journal; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recall.evidence_tables")
    parser.add_argument("journal", type=Path, help="the cells.jsonl of a run")
    parser.add_argument("--arm", default=DEFAULT, help="whose layers are shown (default: default)")
    parser.add_argument("--rows", type=Path, help="write a row for each layer and head, as JSON lines")
    asked = parser.parse_args(arguments)
    if not asked.journal.is_file():
        print(f"error: there is no {asked.journal}", file=sys.stderr)
        return 2
    console, results = Console(), Results(Journal(asked.journal))
    show_evidence(console, results)
    for where in results.wheres:
        show_layers(console, results, where, asked.arm)
    for verdict in evidence_verdicts(results):
        console.print(f"  {verdict}", highlight=False, markup=False)
    if asked.rows is not None:
        lines = [json.dumps(row) + "\n" for row in evidence_rows(results)]
        asked.rows.write_text("".join(lines), encoding="utf-8")
    return 0


def _show_coverage(console: Console, results: Results) -> None:
    heads = ("task", "tokens", "n", "arm", *RULES, "minus exact, points")
    title = "coverage of evicted mass at the same number of blocks, % [95 % interval, bootstrap]"
    table = _table(title, heads)
    for where in results.wheres:
        for arm in results.arms:
            by = {rule: evidence_scores(results, where, arm, "coverage", rule=rule) for rule in RULES}
            ours = by["chosen"]
            if ours.values:
                cells = [_percent(spread(by[rule])) for rule in RULES]
                lost = _points(ours.minus(by["exact"]).difference)
                table.add_row(where.task, f"{where.tokens:,}", str(len(ours.values)), arm, *cells, lost)
    if table.row_count:
        console.print(table)


def _show_hits(console: Console, results: Results) -> None:
    heads = ("task", "tokens", "arm", "rule", *(name for name, _, _ in _HITS))
    table = _table("the answer's blocks among the chosen, %", heads)
    for where in results.wheres:
        for arm in results.arms:
            for rule in RULES:
                found = [
                    evidence_scores(results, where, arm, figure, rule=rule, scope=scope).values
                    for _, scope, figure in _HITS
                ]
                if any(found):
                    cells = [f"{100 * sum(values) / len(values):.0f}" for values in found]
                    table.add_row(where.task, f"{where.tokens:,}", arm, rule, *cells)
    if table.row_count:
        console.print(table)


def _table(title: str, heads: Sequence[str], left: int = 1) -> Table:
    """An empty table; the first ``left`` columns and the names are set left, figures right."""
    table = Table(title=title, title_justify="left")
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number < left or head in {"arm", "rule"} else "right")
    return table


def _percent(found: Interval) -> str:
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _points(found: Interval) -> str:
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


if __name__ == "__main__":
    sys.exit(main())

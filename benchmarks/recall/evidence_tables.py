"""What the evidence measurement found, as tables: coverage beside the best and a random choice, and answers held.

Prints and measures nothing else.
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from benchmarks.recall.held import FIGURES, RULES
from benchmarks.recall.results import Results, Where
from benchmarks.recall.statistics import Interval


def show_evidence(console: Console, results: Results) -> None:
    """Print both tables, where anything was measured."""
    measured = [
        (where, arm)
        for where in results.wheres
        for arm in results.arms
        if results.coverage(where, arm).values
    ]
    if not measured:
        return
    coverage = _table(
        "attention to evicted tokens that the chosen blocks cover, % [95 % interval, bootstrap]",
        ("task", "tokens", "arm", "n", *RULES, "chosen - 0.95 exact"),
    )
    held = _table(
        "blocks that hold the answer, among those chosen, %: by head, by layer, all layers together",
        ("task", "tokens", "arm", "rule", *(column for _, _, column in FIGURES)),
    )
    for where, arm in measured:
        coverage.add_row(where.task, f"{where.tokens:,}", arm, *_coverage(results, where, arm))
        for rule in RULES:
            means = [f"{100 * mean:.0f}" for mean in results.held(where, arm, rule)]
            if means:
                held.add_row(where.task, f"{where.tokens:,}", arm, rule, *means)
    for table in (coverage, held):
        if table.row_count:
            console.print(table)


def percent(found: Interval) -> str:
    """A part of one with its interval, in percent."""
    return f"{100 * found.value:.0f} [{100 * found.low:.0f}, {100 * found.high:.0f}]"


def points(found: Interval) -> str:
    """A difference with its interval, in points."""
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def _coverage(results: Results, where: Where, arm: str) -> list[str]:
    chosen, exact, by_chance = (results.coverage(where, arm, rule) for rule in RULES)
    means = (percent(one.mean) for one in (chosen, exact, by_chance))
    return [str(len(chosen.values)), *means, points(chosen.minus(exact, 0.95).difference)]


def _table(title: str, heads: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for head in heads:
        table.add_column(head, justify="left" if head in {"task", "arm", "rule"} else "right")
    return table

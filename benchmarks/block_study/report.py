"""The study's findings as a table, as JSON and as a picture. Measures nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from agentmem.errors import MissingExtraError
from benchmarks.block_study.study import AS_CHOSEN, Row, Studied
from benchmarks.block_study.ways import Way
from benchmarks.recall.statistics import Interval, bootstrap_mean

MEBIBYTE = 1 << 20


class Findings:
    """Rows of all histories, by budget and way.

    Args:
        studied: the histories.
        ways: what was compared, in the order of the table.
        reference: the way that the others are compared with, question by question.
    """

    def __init__(self, studied: Sequence[Studied], ways: Sequence[Way], reference: str) -> None:
        self.studied = studied
        self.ways = {way.name: way.cut for way in ways} | {AS_CHOSEN: reference}
        self.reference = reference
        self._rows: dict[tuple[int, str], list[Row]] = {}
        for row in (row for one in studied for row in one.rows):
            self._rows.setdefault((row.budget, row.way), []).append(row)

    @property
    def budgets(self) -> list[int]:
        """Largest first."""
        return sorted({budget for budget, _ in self._rows}, reverse=True)

    def rows(self, budget: int, way: str) -> list[Row]:
        """One for each question, in order; none where it was not compared."""
        return self._rows.get((budget, way), [])

    def coverage(self, budget: int, way: str) -> Interval:
        """Mean over questions, 95 % by bootstrap (of histories where there are ten or more)."""
        rows = self.rows(budget, way)
        return bootstrap_mean([row.figures.coverage for row in rows], [row.history for row in rows])

    def more(self, budget: int, way: str) -> Interval:
        """Coverage minus the reference's on the same questions."""
        rows, others = self.rows(budget, way), self.rows(budget, self.reference)
        gaps = [
            row.figures.coverage - other.figures.coverage for row, other in zip(rows, others, strict=True)
        ]
        return bootstrap_mean(gaps, [row.history for row in rows])

    def evidence(self, budget: int, way: str) -> Interval:
        """How often evidence is chosen whole, mean over the questions that have some; NaN where none has."""
        rows = [(row.figures.evidence, row.history) for row in self.rows(budget, way)]
        kept = [(value, history) for value, history in rows if value is not None]
        return bootstrap_mean([value for value, _ in kept], [history for _, history in kept])

    def mean(self, budget: int, way: str, figure: str) -> float:
        """Mean of another figure over the questions."""
        rows = self.rows(budget, way)
        return float(sum(getattr(row.figures, figure) for row in rows)) / len(rows)

    def block_tokens(self, way: str) -> float:
        """Tokens in a block of that way's cut, mean over the histories' blocks."""
        cut = self.ways[way]
        return sum(one.tokens for one in self.studied) / sum(one.blocks[cut] for one in self.studied)

    def split(self, budget: int) -> list[float]:
        """Places by layer of the best split, mean over all questions."""
        rows = [split for one in self.studied for split in one.splits[budget]]
        return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def show(console: Console, findings: Findings) -> None:
    """Print a table for each budget, and the best splits."""
    for budget in findings.budgets:
        console.print(_table(findings, budget))
        split = " ".join(f"{places:.0f}" for places in findings.split(budget))
        console.print(f"  places by layer of the best split, mean: {split}", highlight=False)


def as_json(findings: Findings, facts: Mapping[str, Any]) -> str:
    """Everything, as one JSON object."""
    summary = [
        {
            "budget": budget,
            "way": way,
            "block_tokens": findings.block_tokens(way),
            "coverage": asdict(findings.coverage(budget, way)),
            "more_than_reference": asdict(findings.more(budget, way)),
            "evidence": asdict(findings.evidence(budget, way)),
            **{
                figure: findings.mean(budget, way, figure)
                for figure in ("blocks", "disk_bytes", "disk_bytes_together")
            },
        }
        for budget in findings.budgets
        for way in findings.ways
        if findings.rows(budget, way)
    ]
    splits = {str(budget): findings.split(budget) for budget in findings.budgets}
    histories = [
        {"history": one.history, "tokens": one.tokens, "blocks": dict(one.blocks)} for one in findings.studied
    ]
    rows = [asdict(row) for one in findings.studied for row in one.rows]
    record = {
        "facts": dict(facts),
        "reference": findings.reference,
        "histories": histories,
        "summary": summary,
        "best_split": splits,
        "rows": rows,
    }
    return json.dumps(record, indent=1) + "\n"


def check_plots() -> None:
    """Raise MissingExtraError where there is nothing to draw with."""
    if find_spec("matplotlib") is None:
        raise MissingExtraError(
            "pictures need matplotlib: pip install 'agentmem-kv[plot]', or leave out --plot"
        )


def draw(findings: Findings, path: Path) -> None:
    """Write a picture of coverage by way, a panel for each budget. Needs the extra ``plot``."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # an optional dependency

    names = [way for way in findings.ways if findings.rows(findings.budgets[0], way)]
    figure = Figure(figsize=(4.5 + 4.0 * len(findings.budgets), 0.6 + 0.28 * len(names)))
    panels = figure.subplots(1, len(findings.budgets), sharey=True, squeeze=False)[0]
    for axes, budget in zip(panels, findings.budgets, strict=True):
        shown = [(place, way) for place, way in enumerate(names) if findings.rows(budget, way)]
        points = [findings.coverage(budget, way) for _, way in shown]
        values = [100 * one.value for one in points]
        below = [100 * (one.value - one.low) for one in points]
        above = [100 * (one.high - one.value) for one in points]
        axes.errorbar(values, [place for place, _ in shown], xerr=[below, above], fmt="o", capsize=3)
        axes.axvline(100 * findings.coverage(budget, findings.reference).value, linewidth=0.8, linestyle=":")
        axes.set_xlabel("evicted attention covered, %")
        axes.set_title(f"{budget:,} tokens")
        axes.grid(alpha=0.3)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    figure.savefig(path, dpi=120, bbox_inches="tight")


def _table(findings: Findings, budget: int) -> Table:
    evicted = sum(one.tokens for one in findings.studied) / len(findings.studied)
    questions = len(findings.rows(budget, findings.reference))
    table = Table(
        title=f"{budget:,} of {evicted:,.0f} evicted tokens, chosen by their true masses; {questions} questions",
        caption=f"more: points over {findings.reference}, paired; [95 %, bootstrap]; whole: evidence chosen to its "
        "last token; blocks: distinct ones a layer; MiB: pages of K and V, all layers / if heads lay together",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("way", no_wrap=True)
    for heading in ("tokens a block", "coverage, %", "more", "whole, %", "blocks", "MiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for way in findings.ways:
        if findings.rows(budget, way):
            table.add_row(way, *_cells(findings, budget, way))
    return table


def _cells(findings: Findings, budget: int, way: str) -> list[str]:
    coverage, more = findings.coverage(budget, way), findings.more(budget, way)
    evidence = findings.evidence(budget, way)
    apart, together = (
        findings.mean(budget, way, figure) / MEBIBYTE for figure in ("disk_bytes", "disk_bytes_together")
    )
    return [
        f"{findings.block_tokens(way):.1f}",
        f"{100 * coverage.value:.1f} [{100 * coverage.low:.1f}, {100 * coverage.high:.1f}]",
        ""
        if way == findings.reference
        else f"{100 * more.value:+.1f} [{100 * more.low:+.1f}, {100 * more.high:+.1f}]",
        f"{100 * evidence.value:.1f}" if evidence.n else "-",
        f"{findings.mean(budget, way, 'blocks'):.0f}",
        f"{apart:.1f} / {together:.1f}",
    ]

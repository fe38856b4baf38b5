"""Results as tables and as one JSON object. Measures and judges nothing."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.recall.cells import Left
from benchmarks.recall.evidence_tables import percent, points, show_evidence
from benchmarks.recall.headline import Verdict
from benchmarks.recall.results import Pick, Results, Where, ranked, score, seen


def show(console: Console, results: Results, verdicts: Sequence[Verdict]) -> None:
    """Print accuracy, rankings, what was seen, differences, costs, and the verdicts."""
    _show_scores(console, results, score, "accuracy, % [95 % interval, Wilson]")
    _show_scores(console, results, ranked, "right choice ranked first, % [95 % interval, Wilson]")
    _show_scores(console, results, seen, "evidence among the recalled blocks of largest share, %")
    _show_kinds(console, results)
    show_evidence(console, results)
    _show_differences(console, results)
    _show_costs(console, results)
    for verdict in verdicts:
        console.print(f"  {verdict}", highlight=False, markup=False)
    for cell in results.failed:
        what = f"{cell.key.task} {cell.key.tokens:,} {cell.key.arm}: {cell.reason}"
        console.print(f"  failed: {what}", highlight=False, markup=False)


def show_left(console: Console, left: Left) -> None:
    """Print what a run left undone, and why."""
    for number, why in (
        (left.out_of_time, "left out, since time was up"),
        (left.elsewhere, "running elsewhere"),
        (left.unfinished, "not finished"),
    ):
        if number:
            console.print(f"  {why}: {number} cells; the same command goes on with them", highlight=False)


def write_json(
    path: Path, results: Results, verdicts: Sequence[Verdict], facts: Mapping[str, Any], left: int
) -> None:
    """Everything, as one JSON object."""
    record = {
        "facts": dict(facts),
        "scores": [
            {**asdict(where), "arm": arm, "kind": kind, "metric": name, **asdict(scores.interval)}
            for where in results.wheres
            for arm in results.arms
            for kind in (None, *results.kinds(where))
            for name, pick in (("score", score), ("ranked", ranked), ("seen", seen))
            if (scores := results.scores(where, arm, pick, kind)).values
        ],
        "verdicts": [asdict(verdict) for verdict in verdicts],
        "cells": [asdict(cell) for cell in results.cells],
        "left_out": left,
    }
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _show_scores(console: Console, results: Results, pick: Pick, title: str) -> None:
    rows = [(where, [_score(results, where, arm, pick) for arm in results.arms]) for where in results.wheres]
    rows = [(where, texts) for where, texts in rows if any(texts)]
    if not rows:
        return
    table = Table(title=title, title_justify="left")
    for head in ("task", "tokens", "n", *results.arms):
        table.add_column(head, justify="left" if head == "task" else "right")
    for where, texts in rows:
        n = max(len(results.scores(where, arm, pick).values) for arm in results.arms)
        table.add_row(where.task, f"{where.tokens:,}", str(n), *texts)
    console.print(table)


def _score(results: Results, where: Where, arm: str, pick: Pick, kind: str | None = None) -> str:
    found = results.scores(where, arm, pick, kind)
    if not found.values:
        return results.status(where, arm) if pick is score else ""
    return percent(found.interval)


def _show_kinds(console: Console, results: Results) -> None:
    """Accuracy by kind of question, where a task has several."""
    several = [where for where in results.wheres if len(results.kinds(where)) > 1]
    if not several:
        return
    table = Table(title="accuracy by kind, % [95 % interval, Wilson]", title_justify="left")
    for head in ("task", "tokens", "kind", *results.arms):
        table.add_column(head, justify="right" if head == "tokens" or head in results.arms else "left")
    for where in several:
        for kind in results.kinds(where):
            texts = [_score(results, where, arm, score, kind) for arm in results.arms]
            table.add_row(where.task, f"{where.tokens:,}", kind, *texts)
    console.print(table)


def _show_differences(console: Console, results: Results) -> None:
    """The default, or the first arm there is, against every other one, question by question."""
    if not results.arms:
        return
    first = results.default if results.default in results.arms else results.arms[0]
    others = [arm for arm in results.arms if arm != first]
    table = Table(
        title=f"{first} minus another arm, points [95 % interval, paired bootstrap]", title_justify="left"
    )
    for head in ("task", "tokens", "arm", "difference", "won", "lost", "McNemar p"):
        table.add_column(head, justify="left" if head in {"task", "arm"} else "right")
    for where in results.wheres:
        ours = results.scores(where, first)
        for arm in others:
            found = ours.minus(results.scores(where, arm))
            if found.difference.n:
                row = (points(found.difference), str(found.won), str(found.lost), f"{found.p:.3f}")
                table.add_row(where.task, f"{where.tokens:,}", arm, *row)
    if table.row_count:
        console.print(table)


def _show_costs(console: Console, results: Results) -> None:
    table = Table(
        title="cost: medians, but the highest peak of memory while reading, and all tokens read again",
        title_justify="left",
    )
    heads = ("held", "read/s", "s a question", "s to first", "disk MiB", "peak MiB", "re-read")
    for head in ("task", "tokens", "arm", *heads):
        table.add_column(head, justify="left" if head in {"task", "arm"} else "right")
    for where in results.wheres:
        for arm in results.arms:
            row = _cost(results, where, arm)
            if row:
                table.add_row(where.task, f"{where.tokens:,}", arm, *row)
    if table.row_count:
        console.print(table)


def _cost(results: Results, where: Where, arm: str) -> list[str]:
    done = [(cell.reading, cell.answers) for cell in results.at(where, arm) if cell.reading is not None]
    answers = [answer for _, of_cell in done for answer in of_cell]
    if not answers:
        return []
    speeds = [reading.tokens_per_second for reading, _ in done if reading.tokens_per_second]
    peaks = [reading.peak_mib for reading, _ in done if reading.peak_mib is not None]
    return [
        f"{statistics.median(reading.tokens_held for reading, _ in done):,.0f}",
        f"{statistics.median(speeds):,.0f}" if speeds else "-",
        f"{statistics.median(round(answer.seconds, 2) for answer in answers):.2f}",
        f"{statistics.median(round(answer.seconds_to_first, 2) for answer in answers):.2f}",
        f"{statistics.median(reading.disk_bytes for reading, _ in done) / (1 << 20):,.0f}",
        f"{max(peaks):,.0f}" if peaks else "-",
        str(sum(answer.tokens_reread for answer in answers)),
    ]

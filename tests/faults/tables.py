"""The table of gates in the page on reliability: its rows are what a run printed, never written by hand."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import torch

from faults.results import GateResult

BEGIN, END = "<!-- gates: begin (python -m faults --long writes these lines) -->", "<!-- gates: end -->"


def table(results: Sequence[GateResult]) -> str:
    """The gates as a Markdown table, with what they ran on."""
    rows = ["| gate | cases | failures | duration | on |", "|---|---:|---:|---:|---|"]
    rows += [_row(result) for result in results]
    cases = sum(result.found.cases for result in results)
    failures = sum(len(result.found.failures) for result in results)
    seconds = sum(result.seconds for result in results)
    rows.append(f"| all | {cases:,} | {failures} | {_duration(seconds)} | {_machine()} |")
    return "\n".join(rows)


def write(page: Path, results: Sequence[GateResult]) -> None:
    """Put the table between the marks of a page. Raises ValueError when the page has none."""
    text = page.read_text(encoding="utf-8")
    start, stop = text.index(BEGIN) + len(BEGIN), text.index(END)
    page.write_text(f"{text[:start]}\n\n{table(results)}\n\n{text[stop:]}", encoding="utf-8")


def _row(result: GateResult) -> str:
    found = result.found
    if found.skipped is not None:
        return f"| {result.gate} | 0 | 0 | – | skipped: {found.skipped} |"
    return f"| {result.gate} | {found.cases:,} | {len(found.failures)} | {_duration(result.seconds)} | {found.on} |"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _machine() -> str:
    return (
        f"{platform.system()} on {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, torch {torch.__version__.split('+')[0]}"
    )

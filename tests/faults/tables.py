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


HEAD = ("| gate | cases | failures | duration | on |", "|---|---:|---:|---:|---|")


def table(results: Sequence[GateResult], older: Sequence[str] = (), note: str = "") -> str:
    """The gates as a Markdown table.

    Args:
        results: what was run now.
        older: rows of an earlier run, for gates that were not run again.
        note: what is said of each gate that was run now.
    """
    rows = {_gate(row): row for row in older}
    rows |= {result.gate: _row(result, note) for result in results}
    ordered = sorted(rows, key=lambda gate: (int(gate.split(" ")[0]), gate))
    return "\n".join([*HEAD, *(rows[gate] for gate in ordered), "", f"Last run on {_machine()}."])


def write(page: Path, results: Sequence[GateResult], note: str = "") -> None:
    """Put the rows between the marks of a page; see :func:`table`. Raises ValueError when the page has no marks."""
    text = page.read_text(encoding="utf-8")
    start, stop = text.index(BEGIN) + len(BEGIN), text.index(END)
    older = [line for line in text[start:stop].splitlines() if line.startswith("| ") and line not in HEAD]
    page.write_text(f"{text[:start]}\n{table(results, older, note)}\n{text[stop:]}", encoding="utf-8")


def _gate(row: str) -> str:
    return row.split("|")[1].strip()


def _row(result: GateResult, note: str) -> str:
    found = result.found
    if found.skipped is not None:
        return f"| {result.gate} | 0 | 0 | – | skipped: {found.skipped} |"
    return f"| {result.gate} | {found.cases:,} | {len(found.failures)} | {_duration(result.seconds)} | {found.on}{note} |"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _machine() -> str:
    return (
        f"{platform.system()} on {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, torch {torch.__version__.split('+')[0]}"
    )

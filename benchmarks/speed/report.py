"""Cells as tables, verdicts as PASS or FAIL, rows for the results file. Measures nothing."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.report import figure
from benchmarks.speed.cells import View, middle
from benchmarks.speed.judge import Judge, Verdict

COLUMNS = ("side", "low", "high", "rounds", "llama_cpp")
"""What this benchmark adds behind the results file's other columns; older rows leave them empty."""
_OLD = ("model", "length", "metric", "value")

METRICS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "floors": (
        ("bytes_per_second", "weights read, bf16, bytes/s"),
        ("int8_bytes_per_second", "weights read, int8, bytes/s"),
        ("flops_per_second", "matrix products, flop/s"),
    ),
    "chunk": (("seconds", "reading a chunk, tokens/s (*)"),),
    "whole": (("seconds", "reading all from nothing, tokens/s"),),
    "decode": (("tokens_per_s", "decoding, tokens/s (*)"), ("step_ms", "  median step, ms")),
    "resume": (
        ("resume_ms", "resume, warm, ms (*)"),
        ("cold_resume_ms", "  cold page cache, ms"),
        ("first_ms", "resume to first token, warm, ms (*)"),
        ("cold_first_ms", "  cold page cache, ms"),
    ),
    "state": (
        ("save_ms", "saving its state, ms (*)"),
        ("load_ms", "loading its state, warm, ms"),
        ("cold_load_ms", "  cold page cache, ms"),
        ("bytes", "its bytes"),
    ),
    "turn": (
        ("turn_ms", "a turn, ms (*)"),
        ("checkpoint_ms", "  its checkpoint, ms"),
        ("written_bytes", "an observation: bytes written"),
        ("device_bytes", "  to the device"),
        ("kv_bytes", "  its keys and values"),
    ),
    "agents": (
        ("one_tokens_per_s", "one agent, tokens/s (*)"),
        ("four_tokens_per_s", "four at once, tokens/s"),
    ),
    "memory": (
        ("turn_mib", "peak anonymous memory, a turn, MiB (*)"),
        ("ingest_mib", "  and reading, MiB"),
    ),
}
_PER_SECOND = {"chunk", "whole"}
SYNTHETIC = (
    "(*) the history before it was not read: random keys and values (llama.cpp: copies of 1,024 tokens that it "
    "read) were put in its place; speed does not depend on them. Median of the rounds (lowest to highest)."
)


@dataclass(frozen=True)
class Row:
    """One figure of one cell kind at one length, over the rounds."""

    side: str
    what: str
    metric: str
    words: str
    length: int
    values: tuple[float, ...]


def rows_of(view: View) -> Iterator[Row]:
    """Everything measured."""
    for what, metrics in METRICS.items():
        for metric, words in metrics:
            for side in view.sides():
                for length in view.lengths(side, what):
                    values = tuple(_values(view, side, what, length, metric))
                    if values:
                        name = "tokens_per_s" if what in _PER_SECOND else metric
                        yield Row(side, what, name, words, length, values)


def show(console: Console, view: View, verdicts: Mapping[str, Sequence[Verdict]]) -> None:
    """Print the figures, then each of our sides' verdicts."""
    found = list(rows_of(view))
    for what in METRICS:
        rows = [row for row in found if row.what == what]
        if rows:
            console.print(_table(view.model, rows))
    console.print(SYNTHETIC, highlight=False)
    for side, of_side in verdicts.items():
        console.print(f"\n{view.model}, {side}:", highlight=False)
        for one in of_side:
            console.print(f"  {line_of(one)}", highlight=False)


def line_of(verdict: Verdict) -> str:
    """One promise in words."""
    word = {True: "PASS", False: "FAIL", None: "not judged"}[verdict.met]
    sign = ">=" if verdict.at_least else "<="
    note = f"; {verdict.note}" if verdict.note else ""
    return f"{word}  {verdict.what}: {spread(verdict.values)} (expected {sign} {verdict.limit:.3g}{note})"


def spread(values: Sequence[float]) -> str:
    """Median, and from lowest to highest."""
    value = middle(values)
    if value is None:
        return "-"
    if len(values) == 1:
        return _short(value)
    return f"{_short(value)} ({_short(min(values))} to {_short(max(values))})"


def checks(judge: Judge, sides: Iterable[str]) -> Iterator[str]:
    """How well integration agrees with reading the same tokens for real."""
    view = judge.view
    for side in sides:
        for length in view.lengths(side, "whole"):
            ratios = []
            for run in range(view.runs):
                found, speed = view.one(side, "whole", length, run), judge.reading(side, length, run)
                if found and speed:
                    ratios.append(length / speed / found["seconds"])
            if ratios:
                yield f"{side}: {length:,} tokens, integrated seconds / real ones: {spread(ratios)}"


def append_csv(path: Path, facts: Mapping[str, str], view: View, llama_version: str) -> None:
    """Add a row per figure to the results file; its header grows once, and older rows stay as they are."""
    header = [*facts, *_OLD, *COLUMNS]
    if path.exists():
        _widen(path, header)
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(header)
        for row in rows_of(view):
            value = middle(row.values)
            assert value is not None, "a row has values"
            name = f"speed_{row.what}_{row.metric}"
            low, high = min(row.values), max(row.values)
            old = (view.model, row.length, name, f"{value:.6g}")
            more = (row.side, f"{low:.6g}", f"{high:.6g}", len(row.values), llama_version)
            writer.writerow([*facts.values(), *old, *more])


def _widen(path: Path, header: Sequence[str]) -> None:
    """Give an older file the new header. Raises ValueError when the two do not begin alike."""
    text = path.read_text(encoding="utf-8")
    first, _, rest = text.partition("\n")
    known = next(csv.reader([first.rstrip("\r")]))
    if known == list(header):
        return
    if known != list(header[: len(known)]):
        raise ValueError(f"{path} has other columns ({', '.join(known)}); write to another file")
    line = io.StringIO()
    csv.writer(line).writerow(header)
    path.write_text(line.getvalue() + rest, encoding="utf-8", newline="")


def _values(view: View, side: str, what: str, length: int, metric: str) -> list[float]:
    if what not in _PER_SECOND:
        return view.values(side, what, length, metric)
    found = (view.one(side, what, length, run) for run in range(view.runs))
    return [one["tokens"] / one["seconds"] for one in found if one]


def _table(model: str, rows: Sequence[Row]) -> Table:
    """Figures of one kind: a line per side and figure, a column per length."""
    lengths = sorted({row.length for row in rows})
    table = Table(title=f"{model}: {rows[0].what}; history in tokens", title_justify="left")
    table.add_column("")
    table.add_column("side", no_wrap=True)
    for length in lengths:
        table.add_column(f"{length:,}" if length else "", justify="right")
    cells = {(row.metric, row.side, row.length): row.values for row in rows}
    for metric, words, side in dict.fromkeys((row.metric, row.words, row.side) for row in rows):
        table.add_row(words, side, *(spread(cells.get((metric, side, length), ())) for length in lengths))
    return table


def _short(value: float) -> str:
    if abs(value) >= 1e8:
        return f"{value:.3g}"
    return f"{value:.2g}" if abs(value) < 0.1 else figure(value)

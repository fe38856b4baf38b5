"""Speed against history as pictures, one line for each side. Needs the extra ``plot``. Measures nothing."""

from __future__ import annotations

from pathlib import Path

from agentmem.errors import MissingExtraError
from benchmarks.speed.cells import View, middle
from benchmarks.speed.report import Row, rows_of

try:
    from matplotlib.figure import Figure
except ImportError as error:  # pragma: no cover  # a user without the extra
    raise MissingExtraError(
        "pictures need matplotlib: pip install 'agentmem-kv[plot]', or leave out --plot"
    ) from error

SHOWN = {"chunk": ("reading", "tokens/s"), "decode": ("decoding", "tokens/s"), "resume": ("resume", "ms")}


def draw(view: View, folder: Path) -> list[Path]:
    """Write a picture per kind of figure; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, drawn = list(rows_of(view)), []
    for what, (title, unit) in SHOWN.items():
        metric = "first_ms" if what == "resume" else "tokens_per_s"
        of_kind = [row for row in rows if row.what == what and row.metric == metric]
        if of_kind:
            path = folder / f"speed-{view.model.replace('/', '-')}-{what}.png"
            _lines(f"{view.model}: {title}", unit, of_kind).savefig(path, dpi=120, bbox_inches="tight")
            drawn.append(path)
    return drawn


def _lines(title: str, unit: str, rows: list[Row]) -> Figure:
    figure = Figure(figsize=(7, 4.5))
    axes = figure.subplots()
    for side in dict.fromkeys(row.side for row in rows):
        points = [(row.length, row.values) for row in rows if row.side == side and row.length]
        middles = [middle(values) or 0.0 for _, values in points]
        below = [value - min(values) for value, (_, values) in zip(middles, points, strict=True)]
        above = [max(values) - value for value, (_, values) in zip(middles, points, strict=True)]
        lengths = [length for length, _ in points]
        axes.errorbar(lengths, middles, yerr=[below, above], marker="o", capsize=3, label=side)
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    ticks = sorted({row.length for row in rows if row.length})
    axes.set_xticks(ticks, [f"{n:,}" for n in ticks], rotation=45)
    axes.minorticks_off()
    axes.set_xlabel("history, tokens")
    axes.set_ylabel(f"{unit} (median, lowest to highest)")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure

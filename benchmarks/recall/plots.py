"""Pictures of results: accuracy against length per arm, and needle grids. Needs the extra ``plot`` (matplotlib).

Measures nothing, and knows results alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agentmem.errors import MissingExtraError
from benchmarks.recall.held import RULES
from benchmarks.recall.results import Results, Where

try:
    from matplotlib.figure import Figure
except ImportError as error:  # pragma: no cover  # a user without the extra
    raise MissingExtraError(
        "pictures need matplotlib: pip install 'agentmem-kv[plot]', or leave out --plot"
    ) from error

ASIDE = 0.012
"""Each arm's points stand so much to the right of the last arm's, so that equal ones do not hide each other."""
DEPTH = "depth "
"""Kinds of questions that begin so are rows of a grid."""


def draw(results: Results, folder: Path) -> list[Path]:
    """Write a picture per task, and one of coverage by layer where it was measured; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for task in dict.fromkeys(where.task for where in results.wheres):
        figure = _grid(results, task) if _depths(results, task) else _lines(results, task)
        drawn.append(_save(figure, folder / f"{task}.png"))
        layers = _layers(results, task)
        if layers is not None:
            drawn.append(_save(layers, folder / f"{task}-coverage.png"))
    return drawn


def _lines(results: Results, task: str) -> Figure:
    """Accuracy against history length, a line for each arm, with Wilson's intervals."""
    figure = Figure(figsize=(7, 4.5))
    axes = figure.subplots()
    for number, arm in enumerate(results.arms):
        found = [(n, results.scores(Where(task, n), arm)) for n in results.lengths(task)]
        points = [(n, scores.interval) for n, scores in found if scores.values]
        if points:
            lengths = [n * (1 + ASIDE * number) for n, _ in points]
            values = [one.value for _, one in points]
            below = [one.value - one.low for _, one in points]
            above = [one.high - one.value for _, one in points]
            axes.errorbar(lengths, values, yerr=[below, above], marker="o", capsize=3, label=arm)
    axes.set_xscale("log", base=2)
    axes.set_xticks(results.lengths(task), [f"{n:,}" for n in results.lengths(task)])
    axes.minorticks_off()
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("history, tokens")
    axes.set_ylabel("accuracy (95 % Wilson)")
    axes.set_title(task)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _grid(results: Results, task: str) -> Figure:
    """Depth by length, one panel for each arm, accuracy as colour."""
    arms = [arm for arm in results.arms if any(results.scores(w, arm).values for w in _wheres(results, task))]
    depths, lengths = _depths(results, task), results.lengths(task)
    figure = Figure(figsize=(1.5 + 3.0 * max(1, len(arms)), 4.5))
    panels = np.atleast_1d(figure.subplots(1, max(1, len(arms)), sharey=True))
    for axes, arm in zip(panels, arms, strict=False):
        cells = np.full((len(depths), len(lengths)), np.nan)
        for row, depth in enumerate(depths):
            for column, tokens in enumerate(lengths):
                values = results.scores(Where(task, tokens), arm, kind=depth).values
                if values:
                    cells[row, column] = sum(values) / len(values)
        axes.imshow(cells, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        axes.set_xticks(range(len(lengths)), [f"{n:,}" for n in lengths], rotation=45)
        axes.set_xlabel("history, tokens")
        axes.set_title(arm)
    panels[0].set_yticks(range(len(depths)), [depth.removeprefix(DEPTH) for depth in depths])
    panels[0].set_ylabel("depth of the needle")
    figure.suptitle(task)
    return figure


def _layers(results: Results, task: str) -> Figure | None:
    """Coverage of each layer at the longest history, a panel for each arm; None where it was not measured."""
    measured = [
        w for w in _wheres(results, task) if any(results.layers(w, arm, "chosen") for arm in results.arms)
    ]
    if not measured:
        return None
    where = measured[-1]
    arms = [arm for arm in results.arms if results.layers(where, arm, "chosen")]
    figure = Figure(figsize=(1.0 + 3.6 * len(arms), 3.6))
    panels = np.atleast_1d(figure.subplots(1, len(arms), sharey=True))
    for axes, arm in zip(panels, arms, strict=True):
        for rule in RULES:
            found = results.layers(where, arm, rule)
            axes.plot(list(found), list(found.values()), marker=".", label=rule)
        axes.set_xlabel("layer")
        axes.set_title(arm)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("evicted attention covered")
    panels[0].set_ylim(-0.03, 1.03)
    panels[0].legend()
    figure.suptitle(f"{task} at {where.tokens:,} tokens")
    return figure


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=120, bbox_inches="tight")
    return path


def _wheres(results: Results, task: str) -> Sequence[Where]:
    return [where for where in results.wheres if where.task == task]


def _depths(results: Results, task: str) -> list[str]:
    """The rows of a task's grid, shallow first; none for other tasks."""
    kinds = {kind for where in _wheres(results, task) for kind in results.kinds(where)}
    return sorted(kinds) if kinds and all(kind.startswith(DEPTH) for kind in kinds) else []

"""A run's progress on a terminal: one bar over the cells, one within the cell, a line for each new cell.

Knows no model. Without a terminal only the lines are printed.
"""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.recall.cells import Cell, CellKey


class Bars:
    """Two progress bars; a context manager."""

    def __init__(self, console: Console, cells: int) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._cells = self._bars.add_task("cells", total=cells)
        self._part = self._bars.add_task("starting", total=None)

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def say(self, words: str) -> None:
        """What is being done now."""
        self._bars.reset(self._part, description=words, total=None)

    def part(self, done: int, total: int) -> None:
        """How much of it is done."""
        self._bars.update(self._part, completed=min(done, total), total=total)

    def cell(self, cell: Cell, *, new: bool) -> None:
        """A cell is finished, or was found finished."""
        self._bars.advance(self._cells)
        if new:
            key = cell.key
            words = f"{key.task} {key.tokens:,} {key.history} {key.arm}: {_outcome(cell)}"
            self._bars.console.print(words, highlight=False, markup=False)

    def elsewhere(self, key: CellKey) -> None:
        """A cell that another process is running."""
        words = f"{key.task} {key.tokens:,} {key.history} {key.arm}: running elsewhere"
        self._bars.console.print(words, highlight=False, markup=False)


def _outcome(cell: Cell) -> str:
    if cell.status != "done" or cell.reading is None:
        return f"{cell.status}: {cell.reason}"
    seconds = sum(answer.seconds for answer in cell.answers)
    right = sum(answer.score for answer in cell.answers)
    return (
        f"{right:g} of {len(cell.answers)} right; read {cell.reading.tokens_read:,} tokens in "
        f"{cell.reading.seconds:.0f} s, asked in {seconds:.0f} s"
    )

"""Progress bars for a terminal, drawn by rich. What a command line passes as ``progress``.

Knows nothing of models. Without a terminal only the notes are printed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars

from agentmem.engine.progress import Advance


class RichProgress:
    """A bar per task, on standard error unless another console is given."""

    def __init__(self, console: Console | None = None) -> None:
        # The stream is fixed now: while a GGUF is read, sys.stderr is somewhere else.
        self.console = console if console is not None else Console(file=sys.stderr)

    def note(self, text: str) -> None:
        """Print one line."""
        self.console.print(text, style="dim", markup=False, highlight=False)

    @contextmanager
    def task(self, text: str, total: int | None) -> Iterator[Advance]:
        """A byte bar; without ``total`` a spinner with the time so far."""
        if not self.console.is_terminal:
            self.note(text)
        with self._bars(counted=total is not None) as bars:
            task_id = bars.add_task(text, total=total)
            yield lambda amount: bars.advance(task_id, amount)

    def _bars(self, *, counted: bool) -> Bars:
        label = TextColumn("{task.description}", markup=False)
        disable = not self.console.is_terminal
        if not counted:
            return Bars(SpinnerColumn(), label, TimeElapsedColumn(), console=self.console, disable=disable)
        columns = (label, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        return Bars(*columns, console=self.console, disable=disable)

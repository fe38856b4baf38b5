"""A progress bar in tokens, for verbs that read for a while. Knows no memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def token_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal's stderr; takes (tokens done, tokens in all)."""
    out = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TextColumn("tokens"), TimeRemainingColumn(), console=out, disable=not out.is_terminal
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)

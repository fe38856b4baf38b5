"""How the six days look on a terminal: talk, progress, receipts and the final table.

Prints, and knows neither model nor memory: it is handed finished records.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from agentmem import MemoryConfig, ResumeReceipt, WriteReceipt

MARK = {True: "[green]yes[/]", False: "[red]no[/]"}


class Page:
    """A terminal to print on; with ``to_stderr``, standard output is left to somebody else."""

    def __init__(self, *, to_stderr: bool = False) -> None:
        self.stream: TextIO = sys.stderr if to_stderr else sys.stdout
        self._console = Console(file=self.stream, highlight=False)

    def note(self, text: str) -> None:
        """One line in passing."""
        self._console.print(text, style="dim", markup=False)

    def heading(self, text: str) -> None:
        """What comes next."""
        self._console.print(f"\n{text}", style="bold", markup=False)

    def day(self, number: int, date: str, resumed: ResumeReceipt) -> None:
        """The head of a day, with what opening the memory found and cost."""
        self.heading(f"Day {number}, {date[:10]}")
        if resumed.created:
            self.note("a new memory")
        else:
            self.note(
                f"resumed in {resumed.seconds * 1000:.0f} ms: {resumed.tokens_held} tokens held, "
                f"{resumed.tokens_prefilled} read again"
            )

    def user(self, text: str) -> None:
        """What the user says."""
        self._console.print(f"you: {text}", style="cyan", markup=False)
        self._console.print("ada: ", end="", markup=False)

    def piece(self, text: str) -> None:
        """A piece of the reply as it is decoded."""
        self._console.out(text, end="", highlight=False)
        self.stream.flush()

    def end(self) -> None:
        """The end of a reply."""
        self._console.print()

    def read(self, name: str, receipt: WriteReceipt) -> None:
        """What reading a document cost."""
        self.note(
            f"read {name}: {receipt.tokens_prefilled} tokens in {receipt.seconds:.0f} s, "
            f"{receipt.bytes_written / 1e6:.0f} MB written"
        )

    @contextmanager
    def bar(self, text: str) -> Iterator[Callable[[int, int], None]]:
        """A progress bar that is told (done, in all); without a terminal, one line."""
        if not self._console.is_terminal:
            self.note(f"{text} ...")
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        with Progress(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        ) as bars:
            task = bars.add_task(text, total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total)

    def out_of_sight(self, places: Sequence[Any], held: int, config: MemoryConfig) -> None:
        """Where the facts lie, now that it has been checked."""
        last = max(place.stop for place in places)
        self.note(
            f"all {len(places)} facts lie before token {last} of {held}: outside the {config.sink_tokens} sink "
            f"tokens and the {config.window_tokens} tokens of the window"
        )

    def answer(self, answer: dict[str, Any]) -> None:
        """One question of the last day: the answer and its receipt."""
        self._console.print(f"you: {answer['question']}", style="cyan", markup=False)
        self._console.print(f"ada: {answer['answer']}  ", end="", markup=False)
        self._console.print("[green]✓[/]" if answer["recalled"] else f"[red]✗ {answer['key']}[/]")
        block = answer["block"]
        recalled = "the block that holds the fact is not among those with the largest shares"
        if block is not None:
            recalled = f"recalled from {block['day']} (turn {block['turn']}), share {block['share']:.1%} (rank {block['rank']})"
        self.note(
            f"     {answer['tokens_held']} tokens held, {answer['tokens_reread']} re-read; {recalled}; "
            f"first token after {answer['seconds_to_first'] * 1000:.0f} ms, done after "
            f"{answer['seconds'] * 1000:.0f} ms"
        )

    def table(self, shown: dict[str, Any], *, enforced: bool) -> None:
        """The final table and the verdict."""
        self._console.print()
        self._console.print(_recall_table(shown))
        again, resume = shown["reprefill_seconds"], shown["resume_seconds"]
        self._console.print(
            f"{shown['tokens_held']} tokens, weights loaded: resumed in {resume * 1000:.0f} ms, read again in "
            f"{again:.1f} s, which is {again / resume:.0f} times as long",
            markup=False,
        )
        passed = "[green]shown[/]" if shown["passed"] else "[red]not shown[/]"
        judged = "" if enforced else f" (not enforced: {shown['model']} is not the default model)"
        self._console.print(f"recall ≥ 0.8 × full attention and ≥ 3 above the window alone: {passed}{judged}")
        self._console.print(f"{shown['seconds']:.0f} s in all", style="dim")


def _recall_table(shown: dict[str, Any]) -> Table:
    table = Table(title=f"Recalled on day 6, {shown['model']}")
    table.add_column("asked")
    table.add_column("fact")
    for name in ("agentmem", "full attention", "window only"):
        table.add_column(name, justify="center")
    rows = zip(shown["answers"], shown["full_attention"], shown["window_only"], strict=True)
    for row in rows:
        table.add_row(row[0]["question"], row[0]["key"], *(MARK[answer["recalled"]] for answer in row))
    recalled = [shown["recalled"][name] for name in ("agentmem", "full_attention", "window_only")]
    table.add_section()
    table.add_row("recalled", "", *(f"[bold]{count} of {shown['facts']}[/]" for count in recalled))
    return table

"""How values look in a terminal: JSON, tables, sizes, dates, one-line receipts. Knows no verbs.

Text that came from a model or a document is stripped of control characters before it is shown, so
that what an agent was told cannot drive the user's terminal.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agentmem.cli.streams import shows_unicode

_CONTROL = {code: None for code in [*range(32), *range(127, 160)] if chr(code) not in "\n\t"}


def console() -> Console:
    """Where tables and dim lines go; follows a redirected stdout."""
    return Console(file=sys.stdout, highlight=False, soft_wrap=False)


def harmless(text: str) -> str:
    """The text without control characters other than newline and tab."""
    return text.translate(_CONTROL)


def plain(value: Any) -> Any:
    """A value as JSON can hold it: records become objects, dates ISO 8601, paths strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Sequence | set | frozenset):
        return [plain(item) for item in value]
    return str(value)


def print_json(value: Any) -> None:
    """Print one JSON value on one line."""
    sys.stdout.write(json.dumps(plain(value), ensure_ascii=not shows_unicode()) + "\n")
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: Sequence[int] = ()) -> None:
    """Print rows under column names; ``numeric`` columns stand to the right."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, column in enumerate(columns):
        grid.add_column(column, justify="right" if index in numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(harmless(cell)) for cell in row))
    console().print(grid)


def pairs(rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair a line."""
    grid = Table(box=None, pad_edge=False, show_header=False)
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, Text(harmless(value)))
    console().print(grid)


def line(text: str, limit: int = 72) -> str:
    """A text on one line, cut at ``limit`` characters."""
    flat = " ".join(harmless(text).split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def size(count: int) -> str:
    """Bytes for people, in powers of 1,024."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:,.0f} {unit}" if unit == "B" else f"{amount:,.1f} {unit}"
        amount /= 1024
    return f"{amount:,.1f} TiB"


def date(stamp: str | datetime | None) -> str:
    """An ISO date or a datetime as local "2026-01-31 18:05"; "never" for None."""
    if stamp is None:
        return "never"
    moment = datetime.fromisoformat(stamp) if isinstance(stamp, str) else stamp
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")


def took(seconds: float) -> str:
    """A duration for people: "18 ms", "4.2 s"."""
    return f"{seconds * 1000:,.0f} ms" if seconds < 1 else f"{seconds:,.1f} s"


def count(number: int, noun: str) -> str:
    """A number with its noun: "1 turn", "8,412 tokens"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

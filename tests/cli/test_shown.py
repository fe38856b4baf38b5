"""How values look in a terminal."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from agentmem.cli.shown import count, date, harmless, line, plain, size, table, took
from agentmem.config import MemoryConfig


@dataclass(frozen=True)
class Sample:
    """A record with one of each kind of field."""

    path: Path
    when: datetime
    rows: tuple[int, ...]
    config: MemoryConfig


def test_records_become_json() -> None:
    """Dataclasses, configurations, dates, paths and tuples all turn into JSON."""
    sample = Sample(Path("a/b"), datetime.fromisoformat("2026-01-02T03:04:05+00:00"), (1, 2), MemoryConfig())

    row = json.loads(json.dumps(plain(sample)))

    assert row["path"] == "a/b"
    assert row["when"] == "2026-01-02T03:04:05+00:00"
    assert row["rows"] == [1, 2]
    assert row["config"]["block_tokens"] == 16


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "a\rb", "\x00"])
def test_text_cannot_drive_the_terminal(hostile: str) -> None:
    """Escape sequences and other control characters never reach the terminal."""
    shown = harmless(f"before\n\t{hostile}after")

    assert shown.startswith("before\n\t")
    assert all(char in "\n\t" or char.isprintable() for char in shown)


def test_tables_show_brackets_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Text that looks like markup is shown, not obeyed."""
    table(("text",), [("[bold]x[/bold]",)])

    assert "[bold]x[/bold]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (size(0), "0 B"),
        (size(1023), "1,023 B"),
        (size(1536), "1.5 KiB"),
        (size(3 << 40), "3.0 TiB"),
        (took(0.0184), "18 ms"),
        (took(4.23), "4.2 s"),
        (count(1, "turn"), "1 turn"),
        (count(8412, "token"), "8,412 tokens"),
        (line("a\n b", 9), "a b"),
        (line("abcdef", 4), "abc…"),
        (date(None), "never"),
    ],
)
def test_figures_for_people(shown: str, expected: str) -> None:
    """Sizes, durations, counts and cut lines read as a person would write them."""
    assert shown == expected

"""What the commands have in common: their options, how lengths are written, where they print. Runs nothing."""

from __future__ import annotations

import argparse
from pathlib import Path

from platformdirs import user_cache_path
from rich.console import Console

from agentmem.config import MemoryConfig
from agentmem.engine.catalog import DEFAULT_MODEL

WIDTH = 160
"""Columns of the tables where there is no terminal."""


def parser() -> argparse.ArgumentParser:
    """Of ``python -m benchmarks.recall``."""
    found = argparse.ArgumentParser(
        prog="python -m benchmarks.recall", description="Measure what is recalled."
    )
    found.add_argument("suite", nargs="?", help="a suite's or a task's name; see --list")
    found.add_argument("--list", action="store_true", help="print the suites, tasks and arms there are")
    _add_what(found)
    _add_how(found)
    return found


def console_of() -> Console:
    """The terminal; a file or a pipe gets lines wide enough for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def names(text: str) -> list[str]:
    """Names with commas between them, each once."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise argparse.ArgumentTypeError("give at least one name")
    return list(dict.fromkeys(found))


def lengths(text: str) -> list[int]:
    """Lengths with commas between them."""
    return [length(part) for part in text.split(",")]


def length(text: str) -> int:
    """A positive number; K stands for 1,000."""
    plain = text.strip().upper()
    try:
        number = 1_000 * int(plain[:-1]) if plain.endswith("K") else int(plain)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number such as 8000 or 8K")
    return number


def _add_what(found: argparse.ArgumentParser) -> None:
    """What is measured."""
    found.add_argument("--model", default=DEFAULT_MODEL, help=f"a model's name (default: {DEFAULT_MODEL})")
    found.add_argument("--device", default="auto")
    found.add_argument("--dtype", default="auto")
    found.add_argument(
        "--selector",
        type=names,
        help="arms, with commas between them: selectors, modes, default, full, window",
    )
    found.add_argument(
        "--budget", type=length, help=f"tokens of the past a step may see (default: {MemoryConfig().budget})"
    )
    found.add_argument("--config", default="{}", help="MemoryConfig options of every arm, as JSON")
    found.add_argument("--lengths", type=lengths, help="tokens of history, such as 4K,16K (K: 1,000)")
    found.add_argument("--limit", type=length, help="histories of each task and length")
    found.add_argument("--questions", type=length, help="questions of each history")
    found.add_argument(
        "--restart", choices=("never", "ask", "compare"), help="ask in a new process, or in both"
    )
    found.add_argument(
        "--rank", action=argparse.BooleanOptionalAction, help="rank choices by log-probability"
    )
    found.add_argument(
        "--evidence", action=argparse.BooleanOptionalAction, help="measure which blocks are chosen"
    )
    found.add_argument("--seed", type=int, default=0, help="of the histories (default: 0)")


def _add_how(found: argparse.ArgumentParser) -> None:
    """How it is run, and where results go."""
    found.add_argument(
        "--workers", type=length, default=1, help="processes that share the cells (default: 1)"
    )
    found.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    found.add_argument("--minutes", type=float, help="begin no cell after so many minutes")
    found.add_argument("--json", type=Path, help="write everything to this file too")
    found.add_argument("--plot", type=Path, help="draw pictures into this folder")
    found.add_argument("--home", type=Path, default=user_cache_path("agentmem") / "recall",
                       help="where finished cells, and the agents meanwhile, are kept")  # fmt: skip
    found.add_argument("--keep", action="store_true", help="keep the agents")

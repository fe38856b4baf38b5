"""Progress on a terminal, in a log, and not at all."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from agentmem.engine.progress import SILENT
from agentmem.engine.quiet import quiet
from agentmem.engine.rich_progress import RichProgress


def test_a_terminal_gets_a_bar() -> None:
    """On a terminal a task with a length shows its name and the bytes done."""
    out = io.StringIO()
    progress = RichProgress(Console(file=out, force_terminal=True, width=120))
    with progress.task("Downloading [tiny]", 2_000_000) as advance:
        advance(500_000)
        advance(1_500_000)

    assert "Downloading [tiny]" in out.getvalue()
    assert "2.0/2.0 MB" in out.getvalue()


def test_a_log_gets_one_line() -> None:
    """Without a terminal a task is one line and notes are lines, markup left as it is."""
    out = io.StringIO()
    progress = RichProgress(Console(file=out, width=120))
    progress.note("from [somewhere]")
    with progress.task("Converting", None) as advance:
        advance(1)

    assert out.getvalue() == "from [somewhere]\nConverting\n"


def test_a_task_ends_with_the_error_inside() -> None:
    """An error inside a task passes through, and the next task works."""
    progress = RichProgress(Console(file=io.StringIO(), force_terminal=True))
    with pytest.raises(KeyError), progress.task("one", 1):
        raise KeyError
    with progress.task("two", 1) as advance:
        advance(1)


def test_bars_are_seen_while_stderr_is_swallowed(capsys: pytest.CaptureFixture[str]) -> None:
    """The default console keeps its stream, so that what silences transformers does not silence us."""
    progress = RichProgress()
    with quiet(swallow_stderr=True):
        progress.note("still here")

    assert capsys.readouterr().err == "still here\n"


def test_the_default_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """The silent progress accepts everything and prints nothing."""
    SILENT.note("unheard")
    with SILENT.task("unseen", 5) as advance:
        advance(5)

    assert capfd.readouterr() == ("", "")

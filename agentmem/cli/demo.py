"""The verb that shows what this is for: three days, three processes, one fact that is still there.

It runs the other verbs as a person would, prints each command before it runs it, and works in a
folder of its own. The full story, with its figures, is examples/multi_day_assistant.py.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from importlib.metadata import distribution
from pathlib import Path

import typer

from agentmem.cli.failures import reported
from agentmem.cli.opening import working
from agentmem.cli.options import Model
from agentmem.cli.shown import console
from agentmem.errors import DownloadError

TOLD = (
    "Good morning! I slept badly, the tram was late again, and it has been raining since Sunday, but the week "
    "looks better than the last one: on Thursday there is the choir, and on Friday the long walk by the lake "
    "with Tomás. Oh, and before it slips my mind: my sister's cat is called Marzipan, and my locker at the "
    "swimming pool is number 8163."
)
"""The facts stand behind the first 64 tokens, which every reply sees anyway."""
ASKED = "What is my sister's cat called, and what is the number of my locker?"


@reported
def demo(model: Model = None) -> None:
    """Show it: told on day 1, a long document on day 2, asked on day 3, each day a new process."""
    chosen = _brought(model)
    with tempfile.TemporaryDirectory(prefix="agentmem-demo-") as folder:
        document = Path(folder) / "manual.txt"
        document.write_text(_long_text(), encoding="utf-8")
        options = ["--home", str(Path(folder) / "home"), "--model", chosen]
        _day("Day 1: told in passing.", ["run", "ada", TOLD, "--at", "2026-03-02T09:00", *options])
        _day(
            "Day 2: a long document.", ["observe", "ada", str(document), "--at", "2026-03-03T09:00", *options]
        )
        _day("Day 3: asked.", ["run", "ada", ASKED, "--at", "2026-03-04T09:00", *options])
        _day("Why it knew.", ["explain", "ada", *options[:2]])


def _brought(model: str | None) -> str:
    """The model to show with, fetched; when the default cannot be had, the small one, and said so."""
    with working("loading torch"):
        from agentmem.engine.catalog import DEFAULT_MODEL, FALLBACK_MODEL
        from agentmem.engine.models import pull
        from agentmem.engine.rich_progress import RichProgress

    chosen = model or DEFAULT_MODEL
    try:
        pull(chosen, progress=RichProgress())
    except DownloadError as error:
        if model is not None:
            raise
        console().print(f"{error} Going on with {FALLBACK_MODEL}, which is weak.", markup=False)
        chosen = FALLBACK_MODEL
        pull(chosen, progress=RichProgress())
    return chosen


def _day(title: str, arguments: list[str]) -> None:
    """Run one verb in a new process, its command shown first."""
    shown = shlex.join(["agentmem", *arguments[: arguments.index("--home")]])
    console().print(f"\n{title}\n$ {shown}", style="bold", markup=False)
    done = subprocess.run([sys.executable, "-m", "agentmem.cli", *arguments], check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)


def _long_text() -> str:
    """A text much longer than the window that every installation has: the project's README and licence."""
    project = distribution("agentmem-kv")
    licence = next(file for file in project.files or [] if file.name == "LICENSE")
    return f"{project.read_text('METADATA')}\n\n{licence.read_text()}"


def register(app: typer.Typer) -> None:
    """Add this verb to the application."""
    app.command()(demo)

"""The root of the command line: one typer application with every verb, and `main`."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from agentmem.cli import archive, browse, demo, edit, keep, keys, mend, models, reading, talk, trust
from agentmem.cli.failures import STOPPED
from agentmem.cli.streams import settle_streams

app = typer.Typer(
    name="agentmem",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for family in (talk, reading, browse, edit, keep, trust, keys, mend, archive, models, demo):
    family.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"agentmem {version('agentmem-kv')}")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and leave."
        ),
    ] = False,
) -> None:
    """A long-term memory for LLM agents that lives in the model's own KV cache."""


def main() -> None:
    """Run the command line and leave with its exit code."""
    # Idle OpenMP threads spin by default, and with other work on the same cores a reply takes several
    # times as long. Spinning briefly costs about 3 % of decoding on idle cores and saves much of that
    # (figures in docs/LOG.md). Read by GNU OpenMP when a verb imports torch.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    settle_streams()
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(STOPPED)

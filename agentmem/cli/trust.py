"""Verbs about whom an agent listens to: quarantine a source, release it again."""

from __future__ import annotations

from typing import Annotated

import typer

from agentmem.cli.failures import reported
from agentmem.cli.opening import opened
from agentmem.cli.options import AsJson, Home, Model, Name, Wait
from agentmem.cli.shown import console, count, print_json

Source = Annotated[str, typer.Argument(metavar="SOURCE", help="The source, as `agentmem history` shows it.")]


@reported
def quarantine(
    name: Name,
    source: Source,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; kept with it.")] = None,
    home: Home = None,
    model: Model = None,
    wait: Wait = 0.0,
    as_json: AsJson = False,
) -> None:
    """Stop attending to all that came from a source. Deletes nothing; `release` undoes it."""
    with opened(name, home=home, model=model, wait=wait) as memory:
        receipt = memory.quarantine(source, reason=reason)
    if as_json:
        print_json(receipt)
        return
    held = f"{count(len(receipt.turns), 'turn')}, {count(receipt.tokens, 'token')}"
    console().print(f"{source} is in quarantine: {held}", markup=False)
    console().print(receipt.residual, style="dim", markup=False)


@reported
def release(
    name: Name,
    source: Source,
    home: Home = None,
    model: Model = None,
    wait: Wait = 0.0,
    as_json: AsJson = False,
) -> None:
    """Let an agent attend to a source in quarantine again."""
    with opened(name, home=home, model=model, wait=wait) as memory:
        receipt = memory.release(source)
    if as_json:
        print_json(receipt)
    else:
        console().print(f"{source} is attended to again.", markup=False)


def register(app: typer.Typer) -> None:
    """Add these verbs to the application."""
    app.command()(quarantine)
    app.command()(release)

"""The verb that reads without answering: observe, with a bar in tokens, resumable by its source."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from agentmem.cli.bars import token_bar
from agentmem.cli.failures import reported
from agentmem.cli.opening import opened
from agentmem.cli.options import AsJson, At, Expires, Home, Model, Name, System, Trust, Wait, aware
from agentmem.cli.shown import console, count, print_json, size, took
from agentmem.errors import InputError


@reported
def observe(
    name: Name,
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="A text file in UTF-8; - reads stdin.")],
    source: Annotated[
        str | None,
        typer.Option("--source", help="What to call it. Repeating a source goes on where it stopped."),
    ] = None,
    trust: Trust = None,
    home: Home = None,
    model: Model = None,
    system: System = None,
    at: At = None,
    expires: Expires = None,
    wait: Wait = 0.0,
    as_json: AsJson = False,
) -> None:
    """Read a text into memory without answering. Stopped midway, the same command goes on from there."""
    text, called = _text_of(file)
    with (
        opened(name, home=home, model=model, system=system, wait=wait, create=True) as memory,
        token_bar(called or "stdin") as advance,
    ):
        receipt = memory.observe(
            text,
            source=source or called,
            trust=trust,
            at=aware(at),
            expires_at=aware(expires),
            on_progress=advance,
        )
    if as_json:
        print_json(receipt)
        return
    read = f"{count(receipt.tokens_prefilled, 'token')} read, {receipt.tokens_held:,} held"
    console().print(f"{read}, {size(receipt.bytes_written)} written, {took(receipt.seconds)}")


def _text_of(file: str) -> tuple[str, str | None]:
    """The text, and what to call it: the file's name, nothing for stdin."""
    if file == "-":
        return sys.stdin.read(), None
    path = Path(file)
    try:
        return path.read_text(encoding="utf-8-sig"), path.name
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as UTF-8 text: {error}") from None


def register(app: typer.Typer) -> None:
    """Add this verb to the application."""
    app.command()(observe)

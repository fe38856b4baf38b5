"""The options that several verbs share, each worded once."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

Name = Annotated[str, typer.Argument(metavar="NAME", help="The agent's name.")]
Home = Annotated[
    Path | None,
    typer.Option("--home", envvar="AGENTMEM_HOME", help="Where agents live. Default: the user-data folder."),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        envvar="AGENTMEM_MODEL",
        help="Built-in name, folder, GGUF file or Hugging Face id; :int8 behind it rounds its weights. "
        "Default: as stored, else the built-in one.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Wait = Annotated[
    float, typer.Option("--wait", min=0.0, metavar="SECONDS", help="How long to wait for a busy agent.")
]
System = Annotated[
    str | None, typer.Option("--system", help="System prompt; a changed one is added as a turn.")
]
Trust = Annotated[
    str | None,
    typer.Option("--trust", help="How far the text is trusted, such as web. Default: as its role is."),
]
DATES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"]
"""How a moment may be typed."""
At = Annotated[
    datetime | None,
    typer.Option(
        "--at",
        formats=DATES,
        help="When this happened, local time. Default: now.",
    ),
]
Expires = Annotated[
    datetime | None,
    typer.Option(
        "--expires",
        formats=DATES,
        help="From then on `agentmem retain` drops it, local time. Default: never.",
    ),
]
Mode = Annotated[
    Literal["drop", "rebuild"],
    typer.Option("--mode", help="rebuild: read later turns again, so that they keep no trace of it."),
]
MaxTokens = Annotated[int, typer.Option("--max-tokens", min=1, help="Longest reply, in tokens.")]
Temperature = Annotated[float, typer.Option("--temperature", min=0.0, help="0: always the likeliest token.")]
TopP = Annotated[float, typer.Option("--top-p", min=0.0, max=1.0, help="Sample from this much probability.")]
TopK = Annotated[int, typer.Option("--top-k", min=0, help="Sample from this many tokens; 0: from all.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Makes sampling repeatable.")]


def aware(at: datetime | None) -> datetime | None:
    """A date typed without an offset is meant in local time."""
    return at.astimezone() if at is not None else None

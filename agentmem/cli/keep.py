"""Verbs about how long things are kept: pin a turn, apply retention, show what was dropped."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import typer

from agentmem.cli.failures import reported
from agentmem.cli.opening import opened
from agentmem.cli.options import DATES, AsJson, Home, Mode, Model, Name, Wait, aware
from agentmem.cli.shown import console, count, date, print_json, table


@reported
def pin(
    name: Name,
    turn: Annotated[int, typer.Argument(metavar="TURN", help="Its number, as `agentmem history` shows it.")],
    off: Annotated[bool, typer.Option("--off", help="Take the pin away.")] = False,
    home: Home = None,
    model: Model = None,
    wait: Wait = 0.0,
    as_json: AsJson = False,
) -> None:
    """Keep a turn whatever retention says. `forget` drops it all the same."""
    with opened(name, home=home, model=model, wait=wait) as memory:
        memory.pin(turn, pinned=not off)
    if as_json:
        print_json({"turn": turn, "pinned": not off})
    else:
        console().print(f"turn {turn} is {'no longer ' if off else ''}pinned", markup=False)


@reported
def retain(
    name: Name,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=0, help="This many may stay.")] = None,
    max_bytes: Annotated[
        int | None, typer.Option("--max-bytes", min=0, help="The same in bytes of keys and values.")
    ] = None,
    policy: Annotated[
        Literal["oldest", "least-recalled"], typer.Option("--policy", help="Which go first.")
    ] = "oldest",
    at: Annotated[
        datetime | None, typer.Option("--at", formats=DATES, help="What time it is. Default: now.")
    ] = None,
    mode: Mode = "drop",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be dropped.")] = False,
    home: Home = None,
    model: Model = None,
    wait: Wait = 0.0,
    as_json: AsJson = False,
) -> None:
    """Drop what has expired, and what is more than a quota allows. Pinned turns stay."""
    with opened(name, home=home, model=model, wait=wait) as memory:
        receipt = memory.apply_retention(
            max_tokens=max_tokens,
            max_bytes=max_bytes,
            policy=policy,
            at=aware(at),
            mode=mode,
            dry_run=dry_run,
        )
    if as_json:
        print_json(receipt)
        return
    verb = "would drop" if dry_run else "dropped"
    gone = f"{len(receipt.expired)} expired and {len(receipt.over_quota)} over the quota"
    console().print(
        f"{verb} {gone}: {count(receipt.tokens, 'token')}; {receipt.tokens_left:,} stay", markup=False
    )
    if receipt.needs_rebuild:
        which = ", ".join(str(turn) for turn in receipt.needs_rebuild)
        console().print(
            f"turn {which} has expired, but lies in the sinks: --mode rebuild drops it", style="dim"
        )


@reported
def audit(name: Name, home: Home = None, as_json: AsJson = False) -> None:
    """Show what was dropped from an agent: when, why and how much; nothing of what it said."""
    with opened(name, home=home, model=None, read_only=True) as memory:
        rows = memory.audit()
    if as_json:
        print_json(rows)
        return
    if not rows:
        console().print(f"Nothing was dropped from {name}.", style="dim", markup=False)
        return
    shown = [(date(r.at), r.what, r.why, str(len(r.turns)), f"{r.tokens:,}") for r in rows]
    table(("when", "what", "why", "turns", "tokens"), shown, numeric=(3, 4))


def register(app: typer.Typer) -> None:
    """Add these verbs to the application."""
    app.command()(pin)
    app.command()(retain)
    app.command()(audit)

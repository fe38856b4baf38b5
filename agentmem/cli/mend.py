"""Verbs that make an agent whole again, or new: repair, reencode."""

from __future__ import annotations

from typing import Annotated

import typer

from agentmem.cli.bars import token_bar
from agentmem.cli.failures import DAMAGED, reported
from agentmem.cli.opening import opened
from agentmem.cli.options import AsJson, Home, Model, Name, Wait
from agentmem.cli.shown import console, count, print_json


@reported
def repair(
    name: Name,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is damaged.")] = False,
    encode: Annotated[
        bool,
        typer.Option("--encode/--set-aside", help="Compute damaged tokens anew, or only set them aside."),
    ] = True,
    home: Home = None,
    model: Model = None,
    wait: Wait = 0.0,
    as_json: AsJson = False,
) -> None:
    """Compute damaged keys and values anew from the stored text. Exit code 3 means that some are left."""
    with opened(name, home=home, model=model, wait=wait) as memory:
        report = memory.repair(dry_run=dry_run, encode=encode)
    if as_json:
        print_json({"agent": name, "ok": report.ok, "report": report})
    else:
        for one in report.ranges:
            told = one.outcome if one.text_kept else f"{one.outcome}, and its text is gone"
            console().print(
                f"{one.file}: tokens {one.start} to {one.stop} of turn {one.turn}: {told}", markup=False
            )
        for file in report.rebuilt_files:
            console().print(f"{file}: whole pages taken over into a new file", markup=False)
        if report.rule_states:
            console().print(f"rule state of turn {', '.join(map(str, report.rule_states))}: made again")
        if report.digest_blocks:
            console().print(
                f"digests of {count(report.digest_blocks, 'block')}: computed again with the next turn"
            )
        tokens = sum(one.stop - one.start for one in report.ranges)
        verdict = f"{count(tokens, 'damaged token')}, {report.tokens('set aside')} set aside"
        console().print(f"{name}: {verdict if report.found else 'nothing is damaged'}", markup=False)
    if not report.ok:
        raise typer.Exit(DAMAGED)


@reported
def reencode(
    name: Name,
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="The new model: built-in name, folder, GGUF file or Hugging Face id."
        ),
    ],
    new_name: Annotated[
        str | None,
        typer.Option("--as", metavar="NEW", help="The new agent's name. Default: it replaces the old one."),
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Move an agent to another model: its text is read again. Repeat it if it was stopped, and it goes on."""
    memory = opened(name, home=home, model=None, read_only=True)
    with (
        memory,
        token_bar(name) as advance,
        memory.reencode(model, agent_id=new_name, on_progress=advance) as new,
    ):
        agent_id, held, turns = new.agent_id, new.tokens_held, new.resumed.turns
    if as_json:
        print_json({"agent": agent_id, "from": name, "model": model, "turns": turns, "tokens_held": held})
    else:
        told = f"{agent_id} is on {model} now: {count(turns, 'turn')}, {count(held, 'token')} held"
        console().print(told, markup=False)


def register(app: typer.Typer) -> None:
    """Add these verbs to the application."""
    app.command()(repair)
    app.command()(reencode)

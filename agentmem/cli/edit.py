"""Verbs that change what is kept: fork, rewind, forget, rm."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Annotated

import typer

import agentmem
from agentmem.cli.bars import token_bar
from agentmem.cli.failures import reported
from agentmem.cli.opening import opened
from agentmem.cli.options import DATES, AsJson, Home, Mode, Model, Name, Wait, aware
from agentmem.cli.shown import console, count, print_json
from agentmem.errors import InputError

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@reported
def fork(
    name: Name,
    new_name: Annotated[str, typer.Argument(metavar="NEW", help="The new agent's name.")],
    home: Home = None,
    model: Model = None,
    wait: Wait = 0.0,
    as_json: AsJson = False,
) -> None:
    """Make a second agent with the same past. From here on each goes its own way."""
    with opened(name, home=home, model=model, wait=wait) as memory, memory.fork(new_name):
        pass
    if as_json:
        print_json({"agent": new_name, "forked_from": name})
    else:
        console().print(f"{new_name} now has {name}'s past.", markup=False)


@reported
def rewind(
    name: Name,
    state_id: Annotated[
        str,
        typer.Argument(
            metavar="STATE",
            help="A state id, or how one in `agentmem history` begins; start: before all turns.",
        ),
    ],
    home: Home = None,
    model: Model = None,
    wait: Wait = 0.0,
    as_json: AsJson = False,
) -> None:
    """Go back to an earlier state. Later turns stay reachable by their own state ids."""
    with opened(name, home=home, model=model, wait=wait) as memory:
        before = memory.checkpoint()
        memory.rewind(None if state_id == "start" else _whole_state(memory, state_id))
        now, held = memory.checkpoint(), memory.tokens_held
    if as_json:
        print_json({"agent": name, "state_id": now, "before": before, "tokens_held": held})
    else:
        now = now or "the start"
        console().print(f"{name} is at {now}, {count(held, 'token')} held; it was at {before}.", markup=False)


def _whole_state(memory: agentmem.AgentMemory, begins: str) -> str:
    """The one state of the history that begins so, else what was typed. Raises InputError for several, or none typed."""
    found = {turn.state_id for turn in memory.history() if turn.state_id.startswith(begins)}
    if not begins or (len(found) > 1 and begins not in found):
        raise InputError(f"{len(found)} states begin with {begins!r}; type more of the one that is meant")
    return found.pop() if len(found) == 1 else begins


@reported
def forget(
    name: Name,
    turn: Annotated[int | None, typer.Option("--turn", help="This turn, by its number.")] = None,
    match: Annotated[str | None, typer.Option("--match", help="Turns that hold this text.")] = None,
    source: Annotated[str | None, typer.Option("--source", help="What was observed under this name.")] = None,
    before: Annotated[datetime | None, typer.Option("--before", formats=DATES, help="Older turns.")] = None,
    after: Annotated[datetime | None, typer.Option("--after", formats=DATES, help="Newer turns.")] = None,
    everything: Annotated[bool, typer.Option("--everything", help="All turns; the agent stays.")] = False,
    mode: Mode = "drop",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be forgotten.")] = False,
    home: Home = None,
    model: Model = None,
    wait: Wait = 0.0,
    as_json: AsJson = False,
) -> None:
    """Drop turns for good: their text, their token ids and their keys and values."""
    if (
        not everything
        and turn is None
        and match is None
        and source is None
        and before is None
        and after is None
    ):
        raise typer.BadParameter(
            "say what to forget: --turn, --match, --source, --before, --after or --everything"
        )
    with opened(name, home=home, model=model, wait=wait) as memory, token_bar(name) as advance:
        receipt = memory.forget(
            turn=turn,
            match=match,
            source=source,
            before=aware(before),
            after=aware(after),
            everything=everything,
            mode=mode,
            dry_run=dry_run,
            on_progress=advance,
        )
    if as_json:
        print_json(receipt)
        return
    verb = "would forget" if receipt.dry_run else "forgot"
    which = ", ".join(str(number) for number in receipt.turns) or "none"
    said = f"{verb} {count(len(receipt.turns), 'turn')} ({which}), {count(receipt.tokens, 'token')}"
    console().print(said, markup=False)
    if receipt.residual:
        console().print(receipt.residual, style="dim", markup=False)
    if receipt.forks:
        console().print(f"still held by: {', '.join(receipt.forks)}", markup=False)


@reported
def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="The agents' names.")],
    home: Home = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete agents and all their files."""
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("not a terminal, so nothing can be asked: say --yes")
        typer.confirm(f"Delete {', '.join(names)} for good?", abort=True)
    from agentmem import AgentMemory

    for name in names:
        AgentMemory.delete(name, home=home)
    if as_json:
        print_json({"deleted": names})
    else:
        console().print(f"deleted {', '.join(names)}", markup=False)


def register(app: typer.Typer) -> None:
    """Add these verbs to the application."""
    app.command()(fork)
    app.command()(rewind)
    app.command()(forget)
    app.command("rm")(remove)

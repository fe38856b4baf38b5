"""Verbs that make an agent whole again, or new: repair, reencode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

import agentmem
from agentmem.cli.bars import token_bar
from agentmem.cli.failures import DAMAGED, reported
from agentmem.cli.opening import opened
from agentmem.cli.options import AsJson, Home, Model, Name, Wait
from agentmem.cli.shown import console, count, print_json
from agentmem.errors import DamagedError

if TYPE_CHECKING:
    from agentmem import RepairReport, SalvageReport


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
    """Compute damaged keys and values anew from the stored text. Exit code 3 means that something is lost or left.

    An index that cannot be read is first built anew from what is left of it.
    """
    saved, report = None, None
    if encode:
        try:
            with opened(name, home=home, model=model, wait=wait) as memory:
                report = memory.repair(dry_run=dry_run)
        except DamagedError:
            report = None  # it cannot be opened as it is
    if report is None:
        saved = agentmem.AgentMemory.salvage(name, home=home, dry_run=dry_run)
        report = saved.repair
    if encode and saved is not None and not dry_run:
        with opened(name, home=home, model=model, wait=wait) as memory:
            report = memory.repair()
    whole = (report is None or report.ok) and (saved is None or not _lost(saved))
    if as_json:
        print_json({"agent": name, "ok": whole, "report": report, "salvage": saved})
    else:
        _say(name, saved, report)
    if not whole:
        raise typer.Exit(DAMAGED)


def _lost(saved: SalvageReport) -> bool:
    """Whether a salvage lost words, ids or turns."""
    return bool(saved.wordless or saved.without_ids or saved.unreachable)


def _say(name: str, saved: SalvageReport | None, report: RepairReport | None) -> None:
    out = console()
    for what in saved.losses if saved is not None else ():
        out.print(f"agent.db: {what}", markup=False)
    if saved is not None:
        for numbers, fate in (
            (saved.wordless, "its words are lost"),
            (saved.without_ids, "its token ids are lost"),
            (saved.unreachable, "it is gone"),
        ):
            for number in numbers:
                out.print(f"turn {number}: {fate}", markup=False)
    if report is None:
        return
    for one in report.ranges:
        told = one.outcome if one.text_kept else f"{one.outcome}, and its text is gone"
        out.print(f"{one.file}: tokens {one.start} to {one.stop} of turn {one.turn}: {told}", markup=False)
    for file in report.rebuilt_files:
        out.print(f"{file}: whole pages taken over into a new file", markup=False)
    if report.rule_states:
        out.print(f"rule state of turn {', '.join(map(str, report.rule_states))}: made again", markup=False)
    if report.digest_blocks:
        out.print(
            f"digests of {count(report.digest_blocks, 'block')}: computed again with the next turn",
            markup=False,
        )
    tokens = sum(one.stop - one.start for one in report.ranges)
    verdict = f"{count(tokens, 'damaged token')}, {report.tokens('set aside')} set aside"
    sound = not report.found and (saved is None or not saved.losses)
    out.print(f"{name}: {'nothing is damaged' if sound else verdict}", markup=False)


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

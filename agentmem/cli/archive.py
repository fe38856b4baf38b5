"""Verbs for whole agents as files: export, restore, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentmem.cli.bars import token_bar
from agentmem.cli.failures import DAMAGED, reported
from agentmem.cli.opening import opened
from agentmem.cli.options import AsJson, Home, Model, Name, Wait
from agentmem.cli.shown import console, count, print_json, size


@reported
def export(
    name: Name,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="The archive to write.")],
    with_kv: Annotated[
        bool, typer.Option("--kv/--text", help="Keep keys and values too: larger, but nothing is read again.")
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write an agent into one file: its text and token ids, and with --kv its keys and values."""
    from agentmem import AgentMemory

    written = AgentMemory.export(name, path, home=home, kv=with_kv)
    if as_json:
        print_json({"agent": name, "path": written, "bytes": Path(written).stat().st_size})
    else:
        console().print(f"wrote {written}, {size(Path(written).stat().st_size)}", markup=False)


@reported
def restore(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="An archive written by export.")],
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="The new agent's name. Default: as exported.")
    ] = None,
    home: Home = None,
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """Make an agent from an archive. Without keys and values in it, its text is read again."""
    from agentmem import AgentMemory

    with (
        token_bar(path.name) as advance,
        AgentMemory.restore(path, agent_id=name, home=home, model=model, on_progress=advance) as memory,
    ):
        agent_id, held = memory.agent_id, memory.tokens_held
    if as_json:
        print_json({"agent": agent_id, "tokens_held": held})
    else:
        console().print(f"restored {agent_id}, {count(held, 'token')} held", markup=False)


@reported
def verify(
    name: Name,
    deep: Annotated[bool, typer.Option("--deep/--quick", help="Hash every stored page again.")] = True,
    home: Home = None,
    model: Model = None,
    wait: Wait = 0.0,
    as_json: AsJson = False,
) -> None:
    """Check an agent's files against their checksums. Exit code 3 means damage was found."""
    with opened(name, home=home, model=model, wait=wait, read_only=True) as memory:
        report = memory.verify(deep=deep)
    if as_json:
        print_json({"agent": name, "ok": report.ok, "report": report})
    else:
        for finding in report.findings:
            console().print(f"{finding.file} at {finding.where}: {finding.detail}", markup=False)
        verdict = "sound" if report.ok else count(len(report.findings), "problem")
        console().print(f"{name}: {verdict}; {count(report.pages, 'page')}, {size(report.bytes)} checked")
    if not report.ok:
        raise typer.Exit(DAMAGED)


def register(app: typer.Typer) -> None:
    """Add these verbs to the application."""
    app.command()(export)
    app.command()(restore)
    app.command()(verify)

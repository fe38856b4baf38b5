"""Verbs that look and change nothing: list, show, history, explain, search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from agentmem.cli.failures import reported
from agentmem.cli.opening import opened
from agentmem.cli.options import AsJson, Home, Model, Name
from agentmem.cli.shown import console, count, date, line, pairs, print_json, size, table
from agentmem.errors import AgentNotFoundError

if TYPE_CHECKING:
    from agentmem import HistoryTurn

SHOWN = 12
"""Characters of a state id in a table; rewind takes as many."""
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="At most this many, the newest.")]


@reported
def list_agents(home: Home = None, as_json: AsJson = False) -> None:
    """List every agent: turns, tokens, bytes on disk, last use."""
    from agentmem import AgentMemory

    agents = AgentMemory.list(home=home)
    if as_json:
        print_json(agents)
    elif not agents:
        console().print("No agents yet. Start one with: agentmem chat NAME", style="dim")
    else:
        rows = [
            (a.agent_id, f"{a.turns:,}", f"{a.tokens:,}", size(a.bytes), date(a.last_used), a.model)
            for a in agents
        ]
        table(("agent", "turns", "tokens", "bytes", "last use", "model"), rows, numeric=(1, 2, 3))


@reported
def show(name: Name, home: Home = None, model: Model = None, as_json: AsJson = False) -> None:
    """Show one agent: its model, size, settings and current state."""
    from agentmem import AgentMemory

    info = next((agent for agent in AgentMemory.list(home=home) if agent.agent_id == name), None)
    if info is None:
        raise AgentNotFoundError(f"there is no agent {name!r}. `agentmem list` shows those there are.")
    with opened(name, home=home, model=model, read_only=True) as memory:
        newest = memory.history(limit=1)
        state = newest[-1].state_id if newest else None
        config = memory.config
    if as_json:
        print_json({"agent": info, "state_id": state, "config": config})
        return
    parts = (
        f"{config.sink_tokens:,} first, {config.recall_tokens:,} recalled, {config.window_tokens:,} newest"
    )
    sees = f"{config.budget:,} tokens at a step: {parts}"
    rows = [
        ("agent", info.agent_id),
        ("model", info.model),
        ("created", date(info.created_at)),
        ("last use", date(info.last_used)),
        ("holds", f"{count(info.turns, 'turn')}, {count(info.tokens, 'token')}, {size(info.bytes)} on disk"),
        ("state", state or "empty"),
        ("sees", sees),
    ]
    pairs(rows)


@reported
def history(
    name: Name, home: Home = None, model: Model = None, limit: Limit = 20, as_json: AsJson = False
) -> None:
    """List the turns that led to the current state, with the state ids that rewind takes; --json: in full.

    In brackets: the source, as forget, quarantine and release take it, and whether it is pinned or in quarantine.
    """
    with opened(name, home=home, model=model, read_only=True) as memory:
        turns = memory.history(limit=limit)
    if as_json:
        print_json(turns)
        return
    if not turns:
        console().print(f"{name} holds no turns.", style="dim", markup=False)
        return
    rows = []
    for turn in turns:
        text = "(forgotten)" if turn.forgotten else _said(turn)
        rows.append(
            (
                str(turn.turn),
                date(turn.created_at),
                turn.kind,
                f"{turn.tokens:,}",
                turn.state_id[:SHOWN],
                text,
            )
        )
    table(("turn", "when", "kind", "tokens", "state", "text"), rows, numeric=(0, 3))


def _said(turn: HistoryTurn) -> str:
    """What a turn says, in one line, behind what is to be known of it."""
    notes = [turn.source, "pinned" if turn.pinned else None, "in quarantine" if turn.quarantined else None]
    known = ", ".join(note for note in notes if note)
    said = " · ".join(f"{m.get('role', '?')}: {line(str(m.get('content', '')), 48)}" for m in turn.messages)
    return f"[{known}] {said}" if known else said


@reported
def explain(
    name: Name,
    home: Home = None,
    model: Model = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most this many blocks.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Show what fed the last reply: the recalled blocks, their turn, date and share of attention."""
    with opened(name, home=home, model=model, read_only=True) as memory:
        explanation = memory.explain()
    if as_json:
        print_json(explanation)
        return
    out = console()
    if explanation.question:
        out.print(line(f"Q {explanation.question}", 100), markup=False)
        out.print(line(f"A {explanation.answer}", 100), markup=False)
    if not explanation.blocks:
        out.print("Nothing was recalled: the first tokens and the recent window were enough.", style="dim")
        return
    out.print(f"{explanation.recalled_mass:.1%} of the attention went to recalled text:", style="dim")
    rows = [
        (f"{block.share:.1%}", str(block.turn), date(block.created_at), line(block.text, 200))
        for block in explanation.blocks[:limit]
    ]
    table(("share", "turn", "when", "text"), rows, numeric=(0, 1))
    more = len(explanation.blocks) - limit
    if more > 0:
        out.print(f"and {count(more, 'block')} with smaller shares", style="dim")


@reported
def search(
    name: Name,
    words: Annotated[str, typer.Argument(metavar="WORDS", help="Turns that hold all of these words.")],
    home: Home = None,
    model: Model = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """Find turns by their words. No model is asked."""
    with opened(name, home=home, model=model, read_only=True) as memory:
        hits = memory.search(words, limit=limit)
    if as_json:
        print_json(hits)
        return
    if not hits:
        console().print("No turn holds these words.", style="dim")
        return
    rows = [(str(hit.turn), date(hit.created_at), hit.role, line(hit.text, 160)) for hit in hits]
    table(("turn", "when", "who", "text"), rows, numeric=(0,))


def register(app: typer.Typer) -> None:
    """Add these verbs to the application."""
    app.command("list")(list_agents)
    app.command()(show)
    app.command()(history)
    app.command()(explain)
    app.command()(search)

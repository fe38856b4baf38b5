"""Verbs that talk: chat in a terminal, run for one question."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from agentmem.cli.failures import reported
from agentmem.cli.opening import opened
from agentmem.cli.options import (
    AsJson,
    At,
    Expires,
    Home,
    MaxTokens,
    Model,
    Name,
    Seed,
    System,
    Temperature,
    TopK,
    TopP,
    Trust,
    Wait,
    aware,
)
from agentmem.cli.shown import console, print_json


@reported
def chat(
    name: Name,
    home: Home = None,
    model: Model = None,
    system: System = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    seed: Seed = None,
    wait: Wait = 0.0,
    as_json: AsJson = False,
) -> None:
    """Talk to an agent. It remembers across sessions; --json answers each input line with a JSON line."""
    from agentmem.cli.chat_room import ChatRoom, resumed_line

    options = sampling(max_tokens, temperature, top_p, top_k, seed)
    with opened(name, home=home, model=model, system=system, wait=wait, create=True) as memory:
        if as_json:
            for message in filter(None, map(str.strip, sys.stdin)):
                print_json(memory.chat(message, **options))
            return
        console().print(resumed_line(memory), style="dim", markup=False)
        ChatRoom(memory, options).talk()


@reported
def run(
    name: Name,
    question: Annotated[str, typer.Argument(metavar="TEXT|-", help="What to say; - reads stdin.")],
    home: Home = None,
    model: Model = None,
    system: System = None,
    at: At = None,
    expires: Expires = None,
    speaker: Annotated[str | None, typer.Option("--speaker", help="Who says it.")] = None,
    trust: Trust = None,
    only_trust: Annotated[
        list[str] | None,
        typer.Option("--only-trust", help="Attend to turns of this trust alone; may be given several times."),
    ] = None,
    forgetful: Annotated[
        bool, typer.Option("--forgetful", help="Answer without remembering the turn.")
    ] = False,
    max_tokens: MaxTokens = 256,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    seed: Seed = None,
    wait: Wait = 0.0,
    as_json: AsJson = False,
) -> None:
    """Say one thing and print the reply; the receipt goes to stderr."""
    from agentmem.cli.chat_room import receipt_line, stream_to

    message = sys.stdin.read().strip() if question == "-" else question
    options = sampling(max_tokens, temperature, top_p, top_k, seed)
    options |= {
        "at": aware(at),
        "expires_at": aware(expires),
        "speaker": speaker,
        "remember": not forgetful,
        "trust": trust,
    }
    options |= {"recall_from": {"trust": only_trust} if only_trust else None}
    with opened(name, home=home, model=model, system=system, wait=wait, create=True) as memory:
        if as_json:
            print_json(memory.chat(message, **options))
            return
        reply = stream_to(sys.stdout.write, memory, message, options)
    typer.secho(receipt_line(reply), dim=True, err=True)


def sampling(
    max_tokens: int, temperature: float, top_p: float, top_k: int, seed: int | None
) -> dict[str, Any]:
    """The options of a reply, as the library names them."""
    return {
        "max_new_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "seed": seed,
    }


def register(app: typer.Typer) -> None:
    """Add these verbs to the application."""
    app.command()(chat)
    app.command()(run)

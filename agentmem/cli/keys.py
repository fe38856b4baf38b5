"""Verbs about keys: make one in a file, lock an encrypted agent with another one.

Every verb opens encrypted agents with the key that AGENTMEM_KEY_FILE or AGENTMEM_PASSPHRASE names, so that no
key stands in a command line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentmem.cli.failures import reported
from agentmem.cli.options import AsJson, Home, Name
from agentmem.cli.shown import console, print_json


@reported
def new_key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that is not there yet.")],
    as_json: AsJson = False,
) -> None:
    """Make a new key for encrypted agents. Without it they cannot be read: keep a copy."""
    from agentmem import MemoryKey

    path = MemoryKey.generate().save(file)
    if as_json:
        print_json({"file": path})
    else:
        console().print(f"{path} holds a new key; set AGENTMEM_KEY_FILE to it.", markup=False)


@reported
def change_key(
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The new key's file.")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Lock an encrypted agent with another key; the one it has now is taken from the environment."""
    from agentmem import AgentMemory, MemoryKey

    AgentMemory.change_key(name, MemoryKey.read(file), home=home)
    if as_json:
        print_json({"agent": name, "file": file})
    else:
        console().print(f"{name} is locked with the key in {file}.", markup=False)


def register(app: typer.Typer) -> None:
    """Add these verbs to the application."""
    app.command("new-key")(new_key)
    app.command("change-key")(change_key)

"""Verbs for language models: list, pull, rm. What they are and where they come from is the engine's."""

from __future__ import annotations

from typing import Annotated

import typer

from agentmem.cli.failures import reported
from agentmem.cli.opening import working
from agentmem.cli.options import AsJson
from agentmem.cli.shown import console, print_json, size, table

app = typer.Typer(no_args_is_help=True, help="List, fetch and remove language models.")
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="A built-in name, GGUF file or hub id.")]


@app.command("list")
@reported
def list_all(as_json: AsJson = False) -> None:
    """List the built-in models and every other one in the cache, with the bytes they take."""
    from agentmem.engine.models import list_models

    found = list_models()
    if as_json:
        print_json(found)
        return
    rows = [
        (
            m.name,
            m.licence,
            "yes" if m.ready else f"no, {size(m.download_bytes)} to fetch",
            size(m.bytes_used),
        )
        for m in found
    ]
    table(("model", "licence", "ready", "on disk"), rows, numeric=(3,))


@app.command()
@reported
def pull(model: ModelName, as_json: AsJson = False) -> None:
    """Fetch a model and make it ready to load. A wrong hash is refused and the file removed."""
    with working("loading torch"):
        from agentmem.engine.models import pull as bring
        from agentmem.engine.rich_progress import RichProgress

    folder = bring(model, progress=RichProgress())
    if as_json:
        print_json({"model": model, "folder": folder})
    else:
        console().print(f"{model} is ready", markup=False)


@app.command("rm")
@reported
def remove(model: ModelName, as_json: AsJson = False) -> None:
    """Remove a model's files from the cache. Agents made with it keep theirs, and can fetch it again."""
    from agentmem.engine.models import remove_model

    freed = remove_model(model)
    if as_json:
        print_json({"model": model, "bytes": freed})
    else:
        console().print(f"removed {model}, {size(freed)} freed", markup=False)


def register(root: typer.Typer) -> None:
    """Add these verbs to the application."""
    root.add_typer(app, name="models")

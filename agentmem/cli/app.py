"""The root of the command line: one typer application, and `main`."""

import typer

app = typer.Typer(no_args_is_help=True)


@app.callback()
def root() -> None:
    """A long-term memory for LLM agents that lives in the model's own KV cache."""


def main() -> None:
    """Run the command line."""
    app()

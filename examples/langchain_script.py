"""What the LangChain examples share: their options, a home to run in, a process for each turn, the exit code.

Knows nothing of LangChain and of memories.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from agentmem import AgentMemError


def read_options(doc: str | None, arguments: Sequence[str] | None) -> argparse.Namespace:
    """--json, --model, --home; and --child, which says that this is the process of one turn."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--model", help="a built-in name, a Hugging Face id, a folder or a GGUF file")
    parser.add_argument("--home", help="where all is kept; default: a temporary folder")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


@contextmanager
def home_of(options: argparse.Namespace) -> Iterator[str]:
    """The folder given, else a temporary one, removed at the end."""
    if options.home is not None:
        yield options.home
        return
    with tempfile.TemporaryDirectory(prefix="agentmem-example-") as folder:
        yield folder


@contextmanager
def plain_errors() -> Iterator[None]:
    """An error of agentmem ends the process with one line and exit code 1."""
    try:
        yield
    except AgentMemError as error:
        raise SystemExit(f"error: {error}") from None


def run_child(turn: Callable[[], dict[str, Any]]) -> int:
    """Take one turn in this process, and print what came of it for the parent."""
    with plain_errors():
        print(json.dumps(turn()))
    return 0


def in_a_new_process(script: str, text: str, options: argparse.Namespace, home: str) -> dict[str, Any]:
    """Run the script again for one turn, in a process of its own; ends this one if that fails."""
    command = [sys.executable, script, "--home", home, "--child", text]
    command += [] if options.model is None else ["--model", options.model]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    turn: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return turn


def run_turns(script: str, texts: Sequence[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Each text in a process of its own, one after the other; shown as they come, unless JSON is wanted."""
    turns: list[dict[str, Any]] = []
    with home_of(options) as home:
        for text in texts:
            turns.append(in_a_new_process(script, text, options, home))
            if not options.json:
                _show(len(turns), turns[-1])
    return turns


def _show(number: int, turn: dict[str, Any]) -> None:
    print(f"process {number}: {turn['tokens_held']} tokens held, {turn['tokens_read']} read")
    print(f"  you: {turn['said']}")
    print("".join(f"  call: {json.dumps(call)}\n" for call in turn.get("calls", ())), end="")
    print(f"  bot: {turn['answer']}\n", flush=True)


def conclude(options: argparse.Namespace, found: dict[str, Any], *, passed: bool) -> int:
    """Print what was found if it was asked for as JSON; returns the exit code."""
    if options.json:
        print(json.dumps({**found, "passed": passed}, indent=2))
    return 0 if passed else 1

"""The command line as a whole: its verbs, its speed at rest, its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from agentmem.cli.app import app
from agentmem.cli.failures import reported
from agentmem.errors import AgentBusyError, AgentMemError, AgentNotFoundError, DamagedError

VERBS = [
    "chat",
    "run",
    "observe",
    "list",
    "show",
    "history",
    "explain",
    "search",
    "fork",
    "rewind",
    "forget",
    "pin",
    "retain",
    "audit",
    "export",
    "restore",
    "verify",
    "release",
    "quarantine",
    "new-key",
    "change-key",
    "reencode",
    "repair",
    "rm",
    "models",
    "demo",
]


def test_every_verb_has_help() -> None:
    """Each verb of the design is there, says what it does, and no other is."""
    listed = [c.name or getattr(c.callback, "__name__", "?") for c in app.registered_commands]
    groups = [str(group.name) for group in app.registered_groups]

    assert sorted([*listed, *groups]) == sorted(VERBS)
    for verb in VERBS:
        shown = CliRunner().invoke(app, [verb, "--help"])
        assert shown.exit_code == 0, shown.output


def test_help_does_not_load_torch() -> None:
    """Help and completion stay quick: torch and transformers are imported only by verbs that need them."""
    code = "import sys, agentmem.cli; sys.exit(any(m in sys.modules for m in ('torch', 'transformers')))"

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def in_a_process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """A verb in a process of its own, by the package's name; torch is not imported for it."""
    return subprocess.run(
        [sys.executable, "-m", "agentmem", *arguments],
        capture_output=True,
        check=False,
        timeout=120,
        **options,
    )


def test_the_package_runs_as_the_command() -> None:
    """python -m agentmem is the command line, and the version is the package's."""
    import agentmem

    assert in_a_process("--version").stdout.decode().strip() == f"agentmem {agentmem.__version__}"
    assert in_a_process("bogus").returncode == 2
    assert b"Usage" in in_a_process("-h").stdout


def test_shells_can_complete_verbs() -> None:
    """The completion that --show-completion prints for a shell offers the verbs."""
    asked = {
        **os.environ,
        "_AGENTMEM_COMPLETE": "complete_bash",
        "COMP_WORDS": "agentmem fo",
        "COMP_CWORD": "1",
    }
    code = "import sys; sys.argv = ['agentmem']; from agentmem.cli import main; main()"
    offered = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, env=asked)

    assert offered.stdout.decode().split() == ["fork", "forget"]


def test_streams_that_the_shell_closed(tmp_path: Path) -> None:
    """Without stdin, stdout or stderr a verb does what it does, and says it nowhere."""
    shown = subprocess.run(
        f"exec {sys.executable} -m agentmem models rm nothing <&- >&- 2>&-",
        shell=True,
        check=False,
        cwd=tmp_path,
    )

    assert shown.returncode == 1


def test_a_locale_without_unicode(tmp_path: Path) -> None:
    """What stdout cannot show is shown as "?"; JSON is escaped, so that nothing is lost."""
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    code = (
        "from agentmem.cli.streams import settle_streams; settle_streams();"
        "from agentmem.cli.shown import print_json, table; table(('é',), [('x',)]); print_json({'é': '👋'})"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=ascii_only)

    assert shown.stdout.isascii()
    assert json.loads(shown.stdout.splitlines()[-1]) == {"é": "👋"}


def test_version() -> None:
    """--version prints name and version and leaves."""
    shown = CliRunner().invoke(app, ["--version"])

    assert shown.exit_code == 0
    assert shown.stdout.startswith("agentmem 0.")


@pytest.mark.parametrize(
    "arguments", [["bogus"], ["run"], ["run", "ada", "hi", "--bogus"], ["forget", "ada"], ["rm", "ada"]]
)
def test_wrong_usage_is_two(arguments: list[str]) -> None:
    """An unknown verb or option, a missing argument, or a question nobody can be asked, ends with 2."""
    assert CliRunner().invoke(app, arguments).exit_code == 2


def _failing(error: BaseException) -> typer.Typer:
    """An application whose only verb raises."""
    failing = typer.Typer()

    def verb(as_json: bool = False) -> None:
        """Raise."""
        raise error

    failing.command()(reported(verb))
    return failing


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AgentNotFoundError("no agent 'ada'"), 1),
        (DamagedError("ada", "kv/000000.safetensors", "page 3", "wrong hash"), 3),
        (AgentBusyError("ada is open elsewhere"), 4),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(error: BaseException, code: int) -> None:
    """Each kind of failure has its exit code."""
    shown = CliRunner().invoke(_failing(error))

    assert shown.exit_code == code
    assert shown.stderr.lstrip().startswith("agentmem: ")


def test_an_error_is_one_line() -> None:
    """An error of ours is one line on stderr, with no traceback."""
    shown = CliRunner().invoke(_failing(AgentMemError("first\n   second")))

    assert shown.stderr == "agentmem: first second\n"
    assert shown.stdout == ""


def test_an_error_as_json() -> None:
    """With --json the error is also an object on stdout."""
    shown = CliRunner().invoke(_failing(AgentNotFoundError("no agent 'ada'")), ["--as-json"])

    assert json.loads(shown.stdout) == {"error": {"type": "AgentNotFoundError", "message": "no agent 'ada'"}}


def test_a_file_that_cannot_be_written_is_one_line() -> None:
    """An error of the system, such as a full disk behind stdout, is said in one line."""
    shown = CliRunner().invoke(_failing(OSError(28, "No space left on device")))

    assert shown.exit_code == 1
    assert shown.stderr == "agentmem: [Errno 28] No space left on device\n"


def test_a_bug_is_not_hidden() -> None:
    """What is not an error of ours keeps its traceback."""
    shown = CliRunner().invoke(_failing(ZeroDivisionError("ours")))

    assert isinstance(shown.exception, ZeroDivisionError)

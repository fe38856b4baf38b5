"""What a failed verb says and returns: one line with the remedy, and an exit code. No tracebacks.

Exit codes: 0 done, 1 an error of agentmem or of the system, 2 wrong usage, 3 damage found, 4 the agent is busy,
130 stopped by Ctrl-C. A bug of ours still shows its traceback: it is not the user's to fix.
"""

from __future__ import annotations

import errno
import functools
import json
import sys
from collections.abc import Callable
from typing import NoReturn, ParamSpec

import typer

from agentmem.errors import AgentBusyError, AgentMemError, DamagedError

FAILED = 1
DAMAGED = 3
BUSY = 4
STOPPED = 130

P = ParamSpec("P")


def reported(verb: Callable[P, None]) -> Callable[P, None]:
    """Make a verb say its errors in one line on stderr (or as JSON, if its ``as_json`` is set)."""

    @functools.wraps(verb)
    def run(*args: P.args, **options: P.kwargs) -> None:
        try:
            verb(*args, **options)
        except AgentMemError as error:
            fail(error, as_json=bool(options.get("as_json", False)))
        except OSError as error:  # the store's own are typed: this is a file of the user's, or stdout
            if error.errno == errno.EPIPE:
                raise  # `| head` has seen enough
            sys.stderr.write(f"agentmem: {error}\n")
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt:
            sys.stderr.write("\nagentmem: stopped\n")
            raise typer.Exit(STOPPED) from None

    return run


def fail(error: AgentMemError, *, as_json: bool) -> NoReturn:
    """Say what was wrong and leave with the code that belongs to it."""
    message = " ".join(str(error).split())
    if as_json:
        row = {"error": {"type": type(error).__name__, "message": message}}
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
    sys.stderr.write(f"agentmem: {message}\n")
    raise typer.Exit(exit_code(error))


def exit_code(error: AgentMemError) -> int:
    """The exit code of an error."""
    if isinstance(error, AgentBusyError):
        return BUSY
    return DAMAGED if isinstance(error, DamagedError) else FAILED

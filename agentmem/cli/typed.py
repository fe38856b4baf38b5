"""Reading what a person types: a prompt, whole pastes, long messages over several lines. Knows no agent."""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress

with suppress(ImportError):
    import readline  # line editing and history in input(); some builds of Python lack it

    # A paste of several lines arrives as one message (GNU readline; the pause below serves the others).
    readline.parse_and_bind("set enable-bracketed-paste on")

_PASTE_PAUSE = 0.03
"""Seconds: a person cannot start the next line sooner, a paste always does."""


def read_message(prompt: str) -> str:
    """One message, trimmed. A paste counts as one; a line that ends in a backslash goes on.

    A line that starts with a slash stands alone: commands may be pasted one below the other.

    Raises:
        EOFError: input ended (Ctrl-D).
        KeyboardInterrupt: Ctrl-C.
    """
    lines = [input(prompt)]
    if lines[0].startswith("/"):
        return lines[0].strip()
    while lines[-1].endswith("\\") or (sys.stdin.isatty() and _more_was_pasted()):
        lines[-1] = lines[-1].removesuffix("\\")
        try:
            lines.append(input("… " if prompt else ""))
        except EOFError:
            break
    return "\n".join(lines).strip()


def _more_was_pasted() -> bool:
    """Whether the terminal already holds more input. Never true on a pipe, where each line is a message."""
    ready, _, _ = select.select([sys.stdin], [], [], _PASTE_PAUSE)
    return bool(ready) and os.isatty(sys.stdin.fileno()) and _has_bytes()


def _has_bytes() -> bool:
    """Whether bytes wait (Ctrl-D makes an idle terminal readable, with none)."""
    import array
    import fcntl
    import termios

    waiting = array.array("i", [0])
    fcntl.ioctl(sys.stdin.fileno(), termios.FIONREAD, waiting)
    return waiting[0] > 0

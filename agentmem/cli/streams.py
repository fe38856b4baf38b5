"""stdin, stdout and stderr as every verb can rely on them, whatever the shell and its locale left open.

Knows no verbs.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path


def settle_streams() -> None:
    """Before any verb: no stream is missing, and no character of a text stops one.

    A stream that the shell closed (``<&-``) reads as empty or goes nowhere. What the locale of the output
    cannot show is shown as "?". Bytes of stdin that are no text arrive as lone surrogates, which the library
    refuses with words, where Python would end in a traceback.
    """
    nowhere = Path(os.devnull)  # opened for as long as the process lives
    sys.stdin = sys.stdin or nowhere.open(encoding="utf-8")
    sys.stdout = sys.stdout or nowhere.open("w", encoding="utf-8")
    sys.stderr = sys.stderr or nowhere.open("w", encoding="utf-8")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def shows_unicode() -> bool:
    """Whether stdout can show any character."""
    return (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "") in {"utf8", "utf8sig"}

"""How long work reports itself: a small protocol, and the silent default.

Nothing is printed unless a :class:`Progress` is passed; a terminal one is in
:mod:`agentmem.engine.rich_progress`. Knows nothing of what the work is.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Advance = Callable[[int], None]
"""Called with the bytes (or steps) done since the last call."""


class Progress(Protocol):
    """Where long work reports to."""

    def note(self, text: str) -> None:
        """Say one line, such as which source is tried next."""
        ...

    def task(self, text: str, total: int | None) -> AbstractContextManager[Advance]:
        """A bar while the block runs; ``total`` in bytes, None when the length is not known."""
        ...


class SilentProgress:
    """Reports nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def task(self, text: str, total: int | None) -> AbstractContextManager[Advance]:
        """No bar."""
        return nullcontext(_ignore)


def _ignore(amount: int) -> None:
    """Drop the report."""


SILENT: Progress = SilentProgress()

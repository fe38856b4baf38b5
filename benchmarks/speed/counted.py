"""Bytes that this process has written so far, as the system counts them. Knows nothing of what wrote them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_COUNTERS = Path("/proc/self/io")


@dataclass(frozen=True)
class Written:
    """Since the process began."""

    written: int
    """Handed to write, pwrite and their like."""
    device: int
    """Sent to the device; whole pages of the file system, and what it keeps in memory not at all."""


def written_bytes() -> Written | None:
    """The counters; None where the system has none."""
    try:
        lines = _COUNTERS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = dict(line.split(": ") for line in lines)
    return Written(int(found["wchar"]), int(found["write_bytes"]))

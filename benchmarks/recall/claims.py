"""Who runs a cell: a file lock for each, so that processes which share a folder never run the same one at once.

The kernel frees a lock when its process ends, however it ends. Knows nothing of what a cell holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout

from benchmarks.recall.cells import CellKey, digest


class Claims:
    """The claims on the cells of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def claim(self, key: CellKey) -> Iterator[bool]:
        """Whether the cell is this process's until the end of the block; it waits for nobody."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._folder / f"{digest(asdict(key))}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

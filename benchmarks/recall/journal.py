"""Finished cells as JSON lines, each on disk before the next begins; any number of processes write one file.

A line is written whole, at the end of the file, under a lock of its own; what a crash cut short is cut off by the next
writer, under the same lock. Readers need none. Knows no model and no task, and not who runs which cell.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from benchmarks.recall.cells import Cell, CellKey


class Journal:
    """The finished cells of a file. Nothing is made before the first cell is added; a failed cell is tried again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))
        self._cells: dict[CellKey, Cell] = {}
        self._fresh: set[CellKey] = set()
        self._bytes = 0
        self._lines = 0
        self.refresh()
        self._fresh.clear()

    def __iter__(self) -> Iterator[Cell]:
        return iter(self._cells.values())

    def finished(self, key: CellKey) -> Cell | None:
        """The cell, unless it is new or failed."""
        cell = self._cells.get(key)
        return None if cell is None or cell.status == "failed" else cell

    def settled(self, key: CellKey) -> Cell | None:
        """The cell when nothing is left to do: finished, or tried since this journal was opened, by whomever."""
        return self._cells.get(key) if key in self._fresh else self.finished(key)

    def refresh(self) -> None:
        """Read what this and other processes have added. Raises ValueError for a line that is no cell."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._bytes)
            data = file.read()
        for line in data[: data.rfind(b"\n") + 1].splitlines(keepends=True):
            cell = self._parsed(line)
            self._cells[cell.key] = cell
            self._fresh.add(cell.key)
            self._bytes += len(line)
            self._lines += 1

    def add(self, cell: Cell) -> None:
        """Keep a cell; it is on disk when this returns. Raises OSError, with the file as it was."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = cell.to_json().encode("ascii") + b"\n"
        with self._lock:
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                _append(file, line)
            finally:
                os.close(file)
        self.refresh()

    def _parsed(self, line: bytes) -> Cell:
        try:
            return Cell.from_json(line.decode("ascii"))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path}, line {self._lines + 1}, is no cell of this version ({error}); move the file"
            ) from error


def _append(file: int, line: bytes) -> None:
    """Write a line behind the last whole one, all or nothing; the caller holds the lock."""
    whole = _whole_bytes(file)
    os.ftruncate(file, whole)
    written = os.write(file, line)
    if written < len(line):
        os.ftruncate(file, whole)
        raise OSError(f"only {written} of {len(line)} bytes could be written; is the disk full?")
    os.fsync(file)


def _whole_bytes(file: int) -> int:
    """Bytes up to the end of the last whole line."""
    size = os.fstat(file).st_size
    if not size or os.pread(file, 1, size - 1) == b"\n":
        return size
    return os.pread(file, size, 0).rfind(b"\n") + 1

"""Measured cells, and the file that keeps them: a finished cell stays finished, whatever ends the run.

One JSON line per cell, on disk before the next one begins. Knows no model and judges nothing.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.speed.rpc import Figures


@dataclass(frozen=True)
class CellKey:
    """What was measured. ``setting`` is a digest of all else that changes figures: versions, processor, sizes."""

    setting: str
    model: str
    side: str
    what: str
    length: int
    run: int


class Cells:
    """Figures by key; with a path, kept there. Raises ValueError when the file is another program's."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._found: dict[CellKey, Figures] = {}
        if path is not None and path.exists():
            self._load(path)

    def __iter__(self) -> Iterator[CellKey]:
        return iter(self._found)

    def get(self, key: CellKey) -> Figures | None:
        """A cell's figures; None when it was not measured."""
        return self._found.get(key)

    def add(self, key: CellKey, figures: Figures) -> None:
        """Keep a cell; it is on disk when this returns."""
        self._found[key] = figures
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"key": asdict(key), "figures": figures}) + "\n"
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _load(self, path: Path) -> None:
        """Read the file; a last line that was cut short by a crash is cut off."""
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            with path.open("r+b") as file:
                file.truncate(len(whole))
        for number, line in enumerate(whole.decode("utf-8").splitlines(), 1):
            try:
                record = json.loads(line)
                self._found[CellKey(**record["key"])] = record["figures"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path}, line {number}, is no cell ({error}); move the file away"
                ) from error


@dataclass(frozen=True)
class View:
    """One model's cells of one setting."""

    cells: Cells
    setting: str
    model: str
    runs: int

    def one(self, side: str, what: str, length: int, run: int) -> Figures:
        """A cell's figures; empty when it was not measured."""
        return self.cells.get(CellKey(self.setting, self.model, side, what, length, run)) or {}

    def value(self, side: str, what: str, length: int, figure: str, run: int) -> float | None:
        """One figure of a cell."""
        return self.one(side, what, length, run).get(figure)

    def values(self, side: str, what: str, length: int, figure: str) -> list[float]:
        """A figure of every run that has it."""
        found = (self.value(side, what, length, figure, run) for run in range(self.runs))
        return [value for value in found if value is not None]

    def lengths(self, side: str, what: str, run: int | None = None) -> list[int]:
        """Where something was measured, shortest first; in one run or in any."""
        keys = (k for k in self.cells if (k.setting, k.model, k.side, k.what) == self._of(side, what))
        return sorted({k.length for k in keys if k.run < self.runs and run in (None, k.run)})

    def sides(self) -> list[str]:
        """Who was measured, in the order they first were."""
        return list(
            dict.fromkeys(k.side for k in self.cells if (k.setting, k.model) == (self.setting, self.model))
        )

    def _of(self, side: str, what: str) -> tuple[str, str, str, str]:
        return self.setting, self.model, side, what


def middle(values: Sequence[float]) -> float | None:
    """The median; None of nothing."""
    return statistics.median(values) if values else None

"""Finished cells from files, for tables of their own: of one model with one set of options, each in its newest version.

Runs and loads nothing. Cells that were measured otherwise are never mixed: which are meant must be said.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.recall.cells import Cell, CellKey
from benchmarks.recall.compact import from_line
from benchmarks.recall.origin import Origin, Version

UNKNOWN = "unknown"
"""The model of cells that were written before they said what they were measured with."""


class GatherError(Exception):
    """What was asked for is not in the files, or is there more than once."""


@dataclass(frozen=True)
class Setting:
    """What cells of one table have in common."""

    model: str
    device: str
    dtype: str
    budget: int | None
    config: str
    """Options that are not the usual ones, as JSON."""

    @classmethod
    def of(cls, cell: Cell) -> Setting:
        """That of a cell."""
        origin = Origin.read(cell)
        if origin is None:
            return cls(UNKNOWN, "", "", None, "")
        return cls(
            model=origin.model,
            device=origin.device.partition(":")[0],
            dtype=origin.dtype,
            budget=origin.budget,
            config=_sorted(origin.options),
        )

    def __str__(self) -> str:
        if self.model == UNKNOWN:
            return f"--model {UNKNOWN} (cells that do not say what they were measured with)"
        start = f"--model {self.model} --device {self.device} --dtype {self.dtype} --budget {self.budget}"
        return f"{start} --config '{self.config}'"


@dataclass(frozen=True)
class Wanted:
    """Which cells are asked for; None: whatever there is, if that is one thing."""

    model: str | None = None
    device: str | None = None
    dtype: str | None = None
    budget: int | None = None
    config: Mapping[str, Any] | None = None

    def fits(self, setting: Setting) -> bool:
        """Whether a setting is all that is asked for."""
        config = None if self.config is None else _sorted(self.config)
        pairs = (
            (self.model, setting.model),
            (self.device, setting.device),
            (self.dtype, setting.dtype),
            (self.budget, setting.budget),
            (config, setting.config),
        )
        return all(wanted is None or wanted == there for wanted, there in pairs)


def read_cells(paths: Iterable[Path]) -> list[Cell]:
    """The cells of files, or of the cells.jsonl of folders; of a cell that is there twice, the later line.

    Raises:
        GatherError: a file is not there, or a line is no cell.
    """
    found: dict[CellKey, Cell] = {}
    for path in paths:
        file = path / "cells.jsonl" if path.is_dir() else path
        if not file.is_file():
            raise GatherError(f"there is no {file}; give the cells.jsonl of a run, or its folder")
        for cell in _lines(file):
            found.pop(cell.key, None)  # the newest stands last
            found[cell.key] = cell
    return list(found.values())


def of_one_setting(cells: Sequence[Cell], wanted: Wanted) -> list[Cell]:
    """The cells of the one setting that is meant. Raises GatherError, naming those there are, unless it is one."""
    there = Counter(Setting.of(cell) for cell in cells)
    meant = [setting for setting in there if wanted.fits(setting)]
    if len(meant) == 1:
        return [cell for cell in cells if Setting.of(cell) == meant[0]]
    found = "".join(f"\n  {setting}: {there[setting]} cells" for setting in meant or there)
    if meant:
        raise GatherError(f"these were measured differently and are not for one table; say which:{found}")
    raise GatherError(f"no cell of that kind; there are:{found or ' none'}")


def newest(cells: Sequence[Cell]) -> list[Cell]:
    """Without cells whose history or arm has since come to mean something else, and failures made good since."""
    texts = {_history(cell): Version.read(cell).text for cell in cells}
    arms = {cell.key.arm: Version.read(cell).arm for cell in cells}
    kept = [
        cell for cell in cells if Version.read(cell) == Version(texts[_history(cell)], arms[cell.key.arm])
    ]
    good = {(_history(cell), cell.key.arm) for cell in kept if cell.status != "failed"}
    return [cell for cell in kept if cell.status != "failed" or (_history(cell), cell.key.arm) not in good]


def _history(cell: Cell) -> tuple[str, int, str]:
    return cell.key.task, cell.key.tokens, cell.key.history


def _lines(path: Path) -> Iterator[Cell]:
    """The cells of whole lines; a last one that is being written, or was cut short, is left out."""
    data = path.read_bytes()
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            yield from_line(line.decode())
        except (ValueError, KeyError, TypeError) as error:
            raise GatherError(f"{path}, line {number}, is no cell of this version ({error})") from error


def _sorted(options: Mapping[str, Any]) -> str:
    return json.dumps(dict(options), sort_keys=True)

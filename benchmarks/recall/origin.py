"""What a cell was measured with, kept in it: cells of different origins are not for one table.

Knows no task and no question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from agentmem import MemoryConfig
from agentmem.engine.model import LanguageModel
from benchmarks.recall.cells import Cell

ORIGIN = "origin"
VERSION = "version"
"""Keys in ``Cell.extra``."""


@dataclass(frozen=True)
class Origin:
    """The model and the options that the arms of a run have in common."""

    model: str
    device: str
    dtype: str
    trained_length: int
    """Tokens the model was trained for."""
    budget: int
    """Tokens of the past that a step may see."""
    options: Mapping[str, Any]
    """Options of every arm that are not MemoryConfig's own."""

    @classmethod
    def of(cls, model: LanguageModel, base: MemoryConfig) -> Origin:
        """That of a run on this model with these options."""
        plain = MemoryConfig().model_dump()
        changed = {name: value for name, value in base.model_dump().items() if value != plain[name]}
        return cls(
            model=model.name,
            device=str(model.device),
            dtype=model.fingerprint["kv_dtype"],
            trained_length=model.binding.trained_length,
            budget=base.budget,
            options=changed,
        )

    @classmethod
    def read(cls, cell: Cell) -> Origin | None:
        """What a cell says of it; None for cells that were written before they said it."""
        row = cell.extra.get(ORIGIN)
        return None if row is None else cls(**row)

    def note(self) -> dict[str, Any]:
        """What a cell keeps of it, as plain JSON."""
        return {ORIGIN: asdict(self)}


@dataclass(frozen=True)
class Version:
    """Of one cell, short names of what may come to mean something else under the same name."""

    text: str | None
    """Of the history's pieces."""
    arm: str | None
    """Of the arm's options; None for a dense arm, whose options are measured to each history."""

    @classmethod
    def read(cls, cell: Cell) -> Version:
        """What a cell says of it; None for what it does not."""
        return cls(**cell.extra.get(VERSION, {"text": None, "arm": None}))

    def note(self) -> dict[str, Any]:
        """What a cell keeps of it, as plain JSON."""
        return {VERSION: asdict(self)}

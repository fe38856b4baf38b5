"""What a finished cell holds (its key, what reading cost, the answers), as one line of JSON; and what a run left.

A cell is task x length x history x arm. Its digest covers everything that could change an answer; a cell of another
digest is another cell. Knows no model and no task.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["done", "does not fit", "failed"]


@dataclass(frozen=True)
class CellKey:
    """Which cell."""

    task: str
    tokens: int
    history: str
    arm: str
    digest: str
    """Of the model, the options, the history and how it is asked."""


@dataclass(frozen=True)
class Reading:
    """What putting the history into the memory cost."""

    tokens_held: int
    tokens_read: int
    """Fewer than held when an interrupted reading went on."""
    seconds: float
    disk_bytes: int
    peak_mib: float | None = None
    """How far anonymous memory rose while reading; None where the system does not say."""

    @property
    def tokens_per_second(self) -> float:
        """Speed of reading; 0 when nothing was left to read."""
        return self.tokens_read / self.seconds if self.tokens_read and self.seconds else 0.0


@dataclass(frozen=True)
class Answer:
    """One question answered and judged. What is None or empty besides was left out of a compact copy."""

    question: str
    kind: str
    text: str
    score: float
    """0 to 1, by the task's judge."""
    seconds: float
    seconds_to_first: float
    tokens_read: int | None
    tokens_generated: int | None
    tokens_reread: int
    recalled_mass: float | None
    seen: float | None
    """Part of the evidence that the receipt's blocks touch; None where there is no evidence or all is attended to."""
    choices: tuple[float, ...] = ()
    """Mean log-probability per token of each choice, the right one first; empty when not ranked."""

    rank: int | None = None
    """Of the right choice, 1 the likeliest, where the choices themselves are left out; see ``place``."""

    @property
    def place(self) -> int | None:
        """The rank of the right choice, one as likely as another behind it; None when not ranked."""
        if not self.choices:
            return self.rank
        return 1 + sum(other >= self.choices[0] for other in self.choices[1:])

    @property
    def ranked(self) -> float | None:
        """1 when the right choice is the likeliest, 0 when not; None when not ranked."""
        return None if self.place is None else float(self.place == 1)


@dataclass(frozen=True)
class Cell:
    """A finished cell. ``extra`` holds what other measurements add, as plain JSON."""

    key: CellKey
    status: Status
    reason: str = ""
    reading: Reading | None = None
    answers: tuple[Answer, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, line: str) -> Cell:
        """The cell of a line. Raises ValueError, KeyError or TypeError for anything else."""
        row = json.loads(line)
        return cls(
            key=CellKey(**row["key"]),
            status=row["status"],
            reason=row["reason"],
            reading=None if row["reading"] is None else Reading(**row["reading"]),
            answers=tuple(Answer(**{**one, "choices": tuple(one["choices"])}) for one in row["answers"]),
            extra=row["extra"],
        )


@dataclass(frozen=True)
class Left:
    """How many cells a run left undone."""

    out_of_time: int = 0
    elsewhere: int = 0
    """Other processes were running them, and still were at the end."""
    unfinished: int = 0
    """Nobody is running them: their process ended before they were done."""

    @property
    def cells(self) -> int:
        """All of them."""
        return self.out_of_time + self.elsewhere + self.unfinished


def digest(*parts: object) -> str:
    """A short name for everything a cell depends on; parts are plain JSON values."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

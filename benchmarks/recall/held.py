"""How often the chosen blocks hold the answer: a cell's figures, added up over its questions.

Reads a cell's evidence, whole or compact. Knows no table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.recall.cells import Cell

RULES = ("chosen", "exact", "random")
"""What the arm chose, and what is judged beside it by the same scores."""
FIGURES = (
    ("heads", "any", "any, a head"),
    ("heads", "all", "all, a head"),
    ("layers", "recall@5", "recall@5, a layer"),
    ("layers", "recall", "recall, a layer"),
    ("layers", "ndcg", "nDCG, a layer"),
    ("layers", "mrr", "MRR, a layer"),
    ("union", "recall@10", "recall@10, all"),
    ("union", "mrr", "MRR, all"),
)
"""(over what, figure, column) of the table of answers held; see :mod:`benchmarks.recall.evidence_ranks`."""
HELD = "held"
"""The key in a compact cell's evidence."""


@dataclass(frozen=True)
class Held:
    """Sums over the questions that have evidence."""

    questions: int
    sums: Mapping[str, Sequence[float]]
    """By rule, one for each of ``FIGURES``."""


def evidence_of(cell: Cell) -> Mapping[str, Any]:
    """What was measured of a cell's evidence; empty where nothing was."""
    found: Mapping[str, Any] = cell.extra.get("evidence", {})
    return found


def held_in(cell: Cell) -> Held:
    """The figures of one cell."""
    evidence = evidence_of(cell)
    if HELD in evidence:
        return Held(**evidence[HELD])
    over, first, _ = FIGURES[0]
    rows = [
        row["rules"]
        for row in evidence.get("questions", ())
        if row["chosen"] and first in row["rules"][RULES[0]][over]
    ]
    sums = {
        rule: [math.fsum(row[rule][over][figure] for row in rows) for over, figure, _ in FIGURES]
        for rule in RULES
    }
    return Held(len(rows), sums)

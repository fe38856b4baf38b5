"""A cell in 2 KB or less, to be kept for good: all that tables, verdicts and pictures need, and no text.

An answer keeps its question, kind, score, seconds, tokens read again, what was seen of its evidence and the rank of the
right choice; the evidence measurement keeps coverage question by question, and the rest added up. Tables of it are the
same, figure by figure: it is as exact as what they print is made from. Knows no model and no file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.recall.cells import Answer, Cell, CellKey, Reading
from benchmarks.recall.held import HELD, RULES, evidence_of, held_in

COMPACT = "compact"
VERSION = 1
DIGITS = 5
"""Decimals kept of coverage and of what is held: those that the measurement has."""
LAYER_DIGITS = 2
"""Of coverage by layer, which is only drawn."""
_TIMES = ("seconds", "seconds_to_first")
_KEPT = ("question", "kind", "score", "seconds", "seconds_to_first", "tokens_reread", "seen", "place")


def to_line(cell: Cell) -> str:
    """One line of JSON. A cell that is compact already stays as it is."""
    extra = {name: value for name, value in cell.extra.items() if name != "evidence"}
    if evidence_of(cell):
        extra["evidence"] = _evidence(cell)
    row = {
        COMPACT: VERSION,
        "key": asdict(cell.key),
        "status": cell.status,
        **({"reason": cell.reason} if cell.reason else {}),
        "reading": None if cell.reading is None else asdict(cell.reading),
        "answers": {name: _column([_value(answer, name) for answer in cell.answers]) for name in _KEPT},
        "n": len(cell.answers),
        "extra": extra,
    }
    return json.dumps(row, sort_keys=True, separators=(",", ":"))


def from_line(line: str) -> Cell:
    """The cell of a line, whole or compact. Raises ValueError, KeyError or TypeError for anything else."""
    row = json.loads(line)
    if COMPACT not in row:
        return Cell.from_json(line)
    if row[COMPACT] != VERSION:
        raise ValueError(f"compact form {row[COMPACT]!r}, this is {VERSION}")
    answers = _answers(row["answers"], row["n"])
    extra = dict(row["extra"])
    if "evidence" in extra:
        extra["evidence"] = _whole_evidence(extra["evidence"], answers)
    return Cell(
        key=CellKey(**row["key"]),
        status=row["status"],
        reason=row.get("reason", ""),
        reading=None if row["reading"] is None else Reading(**row["reading"]),
        answers=answers,
        extra=extra,
    )


def _value(answer: Answer, name: str) -> Any:
    """Times in hundredths of a second."""
    value = getattr(answer, name)
    return _scaled(value, 2) if name in _TIMES else value


def _answers(columns: Mapping[str, Any], n: int) -> tuple[Answer, ...]:
    values = {name: _values(column, n) for name, column in columns.items()}
    return tuple(
        Answer(
            question=values["question"][place],
            kind=values["kind"][place],
            text="",
            score=float(values["score"][place]),
            seconds=values["seconds"][place] / 100,
            seconds_to_first=values["seconds_to_first"][place] / 100,
            tokens_read=None,
            tokens_generated=None,
            tokens_reread=values["tokens_reread"][place],
            recalled_mass=None,
            seen=values["seen"][place],
            rank=values["place"][place],
        )
        for place in range(n)
    )


def _evidence(cell: Cell) -> dict[str, Any]:
    """Columns of whole numbers: 10 ** DIGITS for one."""
    evidence, held = evidence_of(cell), held_in(cell)
    rows = evidence.get("questions", ())
    names = [row["question"] for row in rows]
    as_asked = names == [answer.question for answer in cell.answers]
    return {
        **({} if as_asked else {"questions": _column(names)}),
        "chosen": _column([row["chosen"] for row in rows]),
        "coverage": {
            rule: [_scaled(row["rules"][rule]["heads"]["coverage"], DIGITS) for row in rows] for rule in RULES
        },
        "held": {
            "questions": held.questions,
            "sums": {rule: [_scaled(one, DIGITS) for one in held.sums[rule]] for rule in RULES},
        },
        "layers": _layers(evidence.get("heads", ())),
    }


def _layers(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Coverage of each layer, the mean over its heads."""
    layers = sorted({row["layer"] for row in rows})
    means = {}
    for rule in RULES:
        parts = [[row["rules"][rule]["coverage"] for row in rows if row["layer"] == one] for one in layers]
        means[rule] = [_scaled(math.fsum(part) / len(part), LAYER_DIGITS) for part in parts]
    return {"layer": _column(layers), **means}


def _whole_evidence(row: Mapping[str, Any], answers: Sequence[Answer]) -> dict[str, Any]:
    """As the measurement writes it, without what was left out."""
    one, layers, held, coverage = 10**DIGITS, row["layers"], row["held"], row["coverage"]
    n = len(coverage["chosen"])
    chosen, asked = _values(row["chosen"], n), [answer.question for answer in answers]
    names = _values(row["questions"], n) if "questions" in row else asked
    return {
        "questions": [
            {
                "question": names[place],
                "chosen": chosen[place],
                "rules": {rule: {"heads": {"coverage": coverage[rule][place] / one}} for rule in RULES},
            }
            for place in range(n)
        ],
        "heads": [
            {
                "layer": layer,
                "head": None,
                "rules": {rule: {"coverage": layers[rule][place] / 10**LAYER_DIGITS} for rule in RULES},
            }
            for place, layer in enumerate(_values(layers["layer"], len(layers["chosen"])))
        ],
        HELD: {
            "questions": held["questions"],
            "sums": {rule: [value / one for value in held["sums"][rule]] for rule in RULES},
        },
    }


def _scaled(value: float, digits: int) -> int:
    return round(value * 10**digits)


def _column(values: Sequence[Any]) -> Any:
    """Values as short as they can be written; see ``_values``."""
    if not values:
        return []
    if all(value == values[0] for value in values):
        return {"all": values[0]}
    if all(isinstance(value, str) for value in values):
        return _texts(values)
    if list(values) == list(range(len(values))):
        return {"from": 0}
    if all(value in range(10) for value in values):
        return {"digits": "".join(str(int(value)) for value in values)}
    return [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]


def _texts(values: Sequence[str]) -> dict[str, Any]:
    different = list(dict.fromkeys(values))
    if len(different) < len(values) / 2:
        return {"names": different, "of": _column([different.index(value) for value in values])}
    start = _common_start(values)
    ends = [value[len(start) :] for value in values]
    counted = ends == [str(place) for place in range(len(ends))]
    return {"start": start} if counted else {"start": start, "ends": ends}


def _values(column: Any, n: int) -> list[Any]:
    """The n values of a column: a list; one for ``all``; counted ``from`` 0; ``names`` and which ``of`` them; single
    ``digits``; ``ends`` behind one ``start``, the numbers from 0 where there are none.
    """
    if isinstance(column, list):
        return column
    if "all" in column:
        return [column["all"]] * n
    if "from" in column:
        return list(range(n))
    if "names" in column:
        return [column["names"][place] for place in _values(column["of"], n)]
    if "digits" in column:
        return [int(digit) for digit in column["digits"]]
    return [f"{column['start']}{end}" for end in column.get("ends", range(n))]


def _common_start(values: Sequence[str]) -> str:
    """What the first and the last in order have in common, all have."""
    first, last = min(values), max(values)
    same = (place for place, letter in enumerate(first) if letter != last[place : place + 1])
    return first[: next(same, len(first))]

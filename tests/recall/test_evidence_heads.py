"""Evidence by layer and KV head: means weighted by questions, flat rows, tables of a journal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.recall.cells import Cell, CellKey
from benchmarks.recall.evidence_heads import evidence_rows, head_means, main
from benchmarks.recall.journal import Journal


def rules(**figures: float) -> dict[str, dict[str, float]]:
    """The same figures for each rule, halved for `random`."""
    halved = {name: value / 2 for name, value in figures.items()}
    return {"chosen": dict(figures), "exact": dict(figures), "random": halved}


def cell(history: str, coverage: float, with_evidence: list[bool], arm: str = "default") -> Cell:
    """A cell of one layer with two heads; the second covers a tenth of the first."""
    questions: list[dict[str, Any]] = [
        {
            "question": str(n),
            "rules": {"chosen": {"heads": {"coverage": 1.0, **({"any": 1.0} if has else {})}}},
        }
        for n, has in enumerate(with_evidence)
    ]
    heads = [
        {"layer": 3, "head": 0, "wanted": {"mass": 0.25}, "rules": rules(coverage=coverage, any=1.0)},
        {"layer": 3, "head": 1, "wanted": {}, "rules": rules(coverage=coverage / 10, any=0.0)},
    ]
    layers = [{"layer": 3, "rules": rules(mrr=0.5)}]
    found = {"questions": questions, "heads": heads, "layers": layers}
    return Cell(CellKey("needles", 4000, history, arm, "d"), "done", extra={"evidence": found})


def test_a_mean_counts_every_question_once() -> None:
    """Histories count by their questions; for hits, by those that have evidence."""
    cells = [cell("a", 0.8, [True]), cell("b", 0.2, [False, False, True]), Cell(cells_key(), "failed")]

    assert head_means(cells, "coverage")[3, 0]["chosen"] == pytest.approx((0.8 + 3 * 0.2) / 4)
    assert head_means(cells, "coverage")[3, 1]["random"] == pytest.approx((0.8 + 3 * 0.2) / 80)
    assert head_means(cells, "any")[3, 0]["exact"] == 1.0
    assert head_means([cell("c", 0.5, [False])], "any") == {}


def test_rows_are_flat_and_complete() -> None:
    """One for each layer, head and rule, and one for the layer itself; all of them plain JSON."""
    rows = list(evidence_rows([cell("a", 0.8, [True])]))

    assert [(row["layer"], row["head"], row["rule"]) for row in rows] == [
        (3, head, rule) for head in (0, 1, None) for rule in ("chosen", "exact", "random")
    ]
    assert rows[0]["evidence_mass"] == 0.25 and rows[0]["coverage"] == 0.8 and rows[0]["history"] == "a"
    assert rows[-1]["mrr"] == 0.25 and rows[-1]["evidence_mass"] is None
    assert json.loads(json.dumps(rows)) == rows


def test_a_journal_is_shown_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the arm that is asked for is shown; the rows of all arms are written."""
    journal = Journal(tmp_path / "cells.jsonl")
    for one in (cell("a", 0.8, [True]), cell("a", 0.4, [True], arm="infllm")):
        journal.add(one)

    assert main([str(journal.path), "--arm", "infllm", "--rows", str(tmp_path / "rows.jsonl")]) == 0
    shown = capsys.readouterr().out
    assert "needles 4,000 infllm, coverage" in shown and "default" not in shown
    assert "40 / 40 / 20" in shown and "4 / 4 / 2" in shown
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["arm"] for line in lines} == {"default", "infllm"} and len(lines) == 18
    assert main([str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl" in capsys.readouterr().err


def cells_key() -> CellKey:
    """The key of a cell without evidence."""
    return CellKey("needles", 4000, "c", "default", "d")

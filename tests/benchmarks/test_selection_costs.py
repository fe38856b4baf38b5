"""``benchmarks.selection`` measures real rules over a log on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import selection


def test_costs_are_measured_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One row per rule and length, with the blocks there were; the exit code is the default rule's promise."""
    monkeypatch.setenv("COLUMNS", "200")
    out = tmp_path / "costs.json"
    command = [
        "selection",
        "--tokens",
        "3000",
        "9000",
        "--selector",
        "two-stage,sub-means-4,two-stage-question",
    ]
    monkeypatch.setattr("sys.argv", [*command, "--repeats", "2", "--json", str(out), "--token-ms", "1e6"])

    assert selection.main() == 0
    costs = json.loads(out.read_text(encoding="utf-8"))["costs"]
    assert [(c["selector"], c["tokens"], c["blocks"]) for c in costs] == [
        (name, tokens, (tokens - 1024 - 64) // 16)
        for tokens in (3000, 9000)
        for name in ("two-stage", "sub-means-4", "two-stage-question")
    ]
    assert [c["digest_percent"] for c in costs[:3]] == [3.125, 12.5, 3.125]
    assert all(c["selection_ms"] > 0 and c["digest_ms_per_1k_tokens"] > 0 for c in costs)
    assert "two-stage-question" in capsys.readouterr().out

    monkeypatch.setattr("sys.argv", ["selection", "--tokens", "3000", "--repeats", "1", "--token-ms", "1e-6"])
    assert selection.main() == 1

"""``python -m benchmarks.speed`` from end to end, on a tiny model in real worker processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.speed import __main__ as command
from benchmarks.speed import sides
from support.tiny_folder import write_chat_model


def test_a_quick_run_measures_judges_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both sides are measured and judged, nothing goes to the results file, and a second run measures nothing."""
    model = str(write_chat_model(tmp_path / "model"))
    results, record = tmp_path / "results.csv", tmp_path / "speed.json"
    monkeypatch.setattr(command, "RESULTS", results)
    monkeypatch.setattr(command, "setting_of", lambda *_: "this source")  # which may be edited meanwhile
    arguments = ["speed", "--quick", "--model", model, "--lengths", "256", "1024", "--folder", str(tmp_path)]
    arguments += ["--only", "chunk", "whole", "decode", "floors", "turn", "resume", "agents"]
    monkeypatch.setattr(
        "sys.argv", [*arguments, "--cells", str(tmp_path / "cells.jsonl"), "--json", str(record)]
    )

    first = command.main()
    printed = capsys.readouterr().out
    found = json.loads(record.read_text())[model]
    cells = (tmp_path / "cells.jsonl").read_bytes()
    again = command.main()

    assert found["failed"] == []
    assert first in (0, 1)
    assert again == first
    assert (tmp_path / "cells.jsonl").read_bytes() == cells
    assert not results.exists()
    judged = {one["what"]: one["met"] for one in found["verdicts"]["agentmem bf16"]}
    for words in (
        "reading 1,024 tokens / transformers",
        "decoding at 256 / transformers",
        "checkpoint at 1,024 / turn",
    ):
        assert judged[words] is not None
        assert words in printed
    assert judged["decoding at 1,024 / llama.cpp"] is None
    (bytes_written,) = [
        one for one in found["verdicts"]["agentmem bf16"] if one["what"].startswith("bytes written")
    ]
    assert bytes_written["value"] is None or bytes_written["value"] >= 1
    measured = {(row["side"], row["what"]) for row in found["figures"]}
    assert {
        ("transformers bf16", "decode"),
        ("agentmem bf16", "resume"),
        ("agentmem bf16", "agents"),
    } <= measured


def test_a_missing_peer_ends_the_run_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A peer that was asked for and is not there is an error with the remedy, before anything is measured."""
    monkeypatch.setattr(sides, "find_spec", lambda _name: None)
    monkeypatch.setenv("AGENTMEM_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr("sys.argv", ["speed", "--quick", "--peer", "llamacpp", "--only", "state"])

    assert command.main() == 2
    assert "llama_build" in capsys.readouterr().out.replace("\n", "")

"""``benchmarks.kv_error`` measures each way of keeping keys, and what reading costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import kv_error, kv_reading
from support.tiny_language_model import language_model


def test_errors_are_those_of_rounding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is off where nothing is rounded; rounding is off by little; every reading is timed for both kinds."""
    out = tmp_path / "error.json"
    monkeypatch.setattr(kv_error.LanguageModel, "load", lambda *_, **__: language_model())
    monkeypatch.setattr(kv_reading, "STORED", 4608)
    monkeypatch.setattr("sys.argv", ["kv_error", "--tokens", "200", "--repeats", "1", "--json", str(out)])

    assert kv_error.main() == 0
    made = json.loads(out.read_text(encoding="utf-8"))
    errors = {one["keys"]: one for one in made["errors"]}
    exact = errors.pop("as the model made them")
    assert not any(value for name, value in exact.items() if name != "keys")
    assert len(errors) == 5
    for one in errors.values():
        assert 0 < one["key_percent"] < 5
        assert 0 < one["logit"] <= one["worst_logit"] < 0.5
        assert 0 < one["moved_percent"] < 5
        assert 0 < one["output_percent"] <= one["worst_output_percent"] < 5
    assert [one["what"] for one in made["costs"]] == [
        "window and sinks",
        "recalled blocks",
        "candidates' keys",
    ]
    assert made["facts"]["tokens"] == "200"

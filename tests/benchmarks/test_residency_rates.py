"""``benchmarks.residency`` replays traces over the real policy, and records what a real turn asks for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import residency
from support.hot_life import model_with
from support.tiny_language_model import SMALL


def test_all_of_it_fits_or_nothing_does() -> None:
    """With room for everything only first uses miss; with no room for one request almost all do."""
    trace = residency.made_up(layers=2, blocks=200, selections=12, chosen=8)
    first = sum(
        len({(layer, part, head, block) for head in range(2) for one in trace.asked
             if (one.layer, one.part) == (layer, part) for block in one.blocks[head].tolist()})
        for layer in range(2) for part in range(2)
    )  # fmt: skip
    units = sum(one.blocks.size for one in trace.asked)
    for arrangement in ("per head", "one pool"):
        hits, traffic = residency.replay(trace, 100, arrangement, 0.1)
        assert hits == pytest.approx(100 * (1 - first / units)) and traffic == pytest.approx(100 - hits)
        assert residency.replay(trace, 0.01, arrangement, 0.1)[0] < 10
    assert (
        residency.replay(trace, 30, "whole blocks", 0.1)[1] > residency.replay(trace, 30, "per head", 0.1)[1]
    )


def test_larger_is_never_much_worse() -> None:
    """Hit rates grow with the cache; the decaying policies beat counting uses for ever where likes drift."""
    trace = residency.made_up(layers=2, blocks=200, selections=40, chosen=8)
    found = {(one.percent, one.arrangement, one.policy): one.hit_percent
             for one in residency.rates(trace, (5, 10, 20, 40))}  # fmt: skip
    for arrangement in residency.ARRANGEMENTS:
        for policy in residency.POLICIES:
            grown = [found[percent, arrangement, policy] for percent in (5, 10, 20, 40)]
            assert grown == sorted(grown)
    long = residency.made_up(layers=1, blocks=200, selections=300, chosen=8)
    assert residency.replay(long, 20, "per head", 0.1)[0] > residency.replay(long, 20, "per head", 1.0)[0] + 3


def test_a_trace_is_recorded_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a tiny model's turns ask for, saved, replayed from the file, and written as JSON."""
    monkeypatch.setattr(residency.LanguageModel, "load", lambda _: model_with(0))
    monkeypatch.setattr(residency, "MemoryConfig", lambda: SMALL)
    monkeypatch.setattr(residency, "QUESTIONS", residency.QUESTIONS[:1])
    monkeypatch.setenv("COLUMNS", "160")
    trace, out = tmp_path / "trace.npz", tmp_path / "rates.json"
    command = ["residency", "--percent", "20", "--json", str(out)]
    monkeypatch.setattr("sys.argv", [*command, "--record", "tiny", "--tokens", "150", "--save", str(trace)])
    assert residency.main() == 0
    first = json.loads(out.read_text(encoding="utf-8"))["rates"]
    monkeypatch.setattr("sys.argv", [*command, "--trace", str(trace)])
    assert residency.main() == 0
    assert first == json.loads(out.read_text(encoding="utf-8"))["rates"]
    assert {"per head", "whole blocks", "one pool"} == {rate["arrangement"] for rate in first}
    assert any(rate["hit_percent"] > 0 for rate in first)
    assert "decay 0.1" in capsys.readouterr().out

    asked = residency.loaded(trace).asked
    assert {one.layer for one in asked} == {0, 1} and {one.part for one in asked} == {0, 1}
    assert all(np.all(np.diff(one.blocks) > 0) for one in asked)

"""``benchmarks.first_token``: resuming and reading again are both measured, and the ratio is of one round."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from agentmem import AgentMemory
from agentmem.store import DiskHome
from benchmarks.first_token import CLOCKS, Found, measure, show
from support.tiny_language_model import SMALL, language_model


def test_a_tiny_model_is_measured_at_every_depth(tmp_path: Path) -> None:
    """Each round gives one figure by each clock; agents are as long afterwards as before."""
    model = language_model("llama", dtype="bfloat16")
    found = measure(model, 640, 2, tmp_path, SMALL)
    assert {*found} == {*CLOCKS}
    for figures in found.values():
        assert len(figures.resume) == len(figures.first) == len(figures.again) == 2
        assert all(first > resume for first, resume in zip(figures.first, figures.resume, strict=True))
    for length in (40, 160, 640):
        with AgentMemory.resume(f"at-{length}", model=model, home=DiskHome(tmp_path)) as memory:
            assert memory.tokens_held < length + 64


def test_ratios_are_taken_round_by_round() -> None:
    """A slow round slows both sides, and its ratio stays what it is."""
    row = Found([0.1, 0.1, 0.1], [1.0, 10.0, 2.0], [100.0, 1000.0, 250.0]).row()
    assert row["ratio"] == pytest.approx(0.01)
    assert (row["least"], row["most"]) == pytest.approx((0.008, 0.01))
    assert row["first"] == pytest.approx(2000)


@pytest.mark.parametrize(("again", "kept"), [(500.1, "yes"), (400.0, "NO")])
def test_the_verdict_is_printed(again: float, kept: str) -> None:
    """At most a five-hundredth is kept, more is not."""
    console = Console(width=120, record=True, quiet=False)
    with console.capture() as captured:
        show(console, 1000, {"clock": Found([0.1], [1.0], [again]).row()})
    assert captured.get().rstrip().endswith(kept)

"""The benchmark's own arithmetic: medians, ratios of neighbours, promises judged by the numbers alone."""

from __future__ import annotations

import csv
import mmap
import time
from pathlib import Path

import pytest
import torch

from benchmarks.machine import PeakMemory, anonymous_bytes
from benchmarks.plan import Plan, Samples
from benchmarks.report import append_csv, expectations
from benchmarks.step_clock import StepClock

PLAN = Plan(
    ["m"], [4_000, 32_000], 3, 129, 1_024, 5, peer=False, peer_reply=17, peer_ingest=512, peer_read=2_000
)


def _filled(**by_metric: tuple[float, float]) -> Samples:
    samples = Samples()
    for metric, values in by_metric.items():
        for length, value in zip(PLAN.lengths, values, strict=True):
            samples.add("m", length, metric, value)
    return samples


def _judged(samples: Samples, words: str) -> bool | None:
    (found,) = [one.met for one in expectations("m", PLAN, samples) if one.what.startswith(words)]
    return found


def test_ratio_pairs_the_rounds() -> None:
    """A ratio is the median of each round's own ratio: a slow round slows both sides and changes nothing."""
    samples = Samples()
    for mood in (1.0, 0.1, 5.0):
        samples.add("m", 2_000, "decode_tokens_per_s", 10 * mood)
        samples.add("m", 32_000, "decode_tokens_per_s", 9 * mood)

    assert samples.ratio(
        "m", (32_000, "decode_tokens_per_s"), (2_000, "decode_tokens_per_s")
    ) == pytest.approx(0.9)


@pytest.mark.parametrize(("fast", "slow", "met"), [(10.0, 9.5, True), (10.0, 5.0, False)])
def test_flat_decoding_is_judged(fast: float, slow: float, met: bool) -> None:
    """Decoding at the longest history may lose a tenth, not half."""
    assert _judged(_filled(decode_tokens_per_s=(fast, slow)), "decode speed") is met


@pytest.mark.parametrize(
    ("metric", "words"), [("resume_cold_ms", "resume, cold"), ("checkpoint_percent", "check")]
)
def test_limits_are_judged_at_each_length(metric: str, words: str) -> None:
    """One value within the limit passes, one beyond it fails."""
    found = [
        one.met
        for one in expectations("m", PLAN, _filled(**{metric: (4.0, 51.0)}))
        if one.what.startswith(words)
    ]

    assert found == [True, False]


def test_what_was_not_measured_is_not_judged() -> None:
    """Without numbers there is neither PASS nor FAIL."""
    assert {one.met for one in expectations("m", PLAN, Samples())} == {None}


def test_results_are_appended_under_one_header(tmp_path: Path) -> None:
    """Two runs give one header and both runs' rows."""
    for value in (1.0, 2.0):
        append_csv(
            tmp_path / "r.csv", PLAN, _filled(turn_ms=(value, value)), {"date": "2026-01-01", "cpu": "a, b"}
        )

    with (tmp_path / "r.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["cpu"], row["length"], row["value"]) for row in rows] == [
        ("a, b", str(length), value) for value in ("1", "2") for length in PLAN.lengths
    ]


def test_clock_forbids_stop_tokens_and_counts_steps() -> None:
    """Stop tokens cannot win, other scores stay, and n calls make n - 1 steps."""
    clock = StepClock({2})
    for _ in range(3):
        scores = clock(torch.tensor([[0]]), torch.tensor([[1.0, 2.0, 9.0]]))

    assert scores.argmax().item() == 1
    assert len(clock.steps) == 2


@pytest.mark.skipif(anonymous_bytes() is None, reason="this system does not say how much memory is anonymous")
def test_peak_memory_sees_what_was_freed_again() -> None:
    """The peak counts memory that a block took and gave back."""
    with PeakMemory() as memory:
        block = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # given back at once
        block.write(b"x" * len(block))
        held = anonymous_bytes()
        assert held is not None
        patience = time.monotonic() + 30
        while (memory.peak or 0) < held and time.monotonic() < patience:  # the watching thread's turn
            time.sleep(0.01)
        block.close()
    after = anonymous_bytes()

    assert memory.peak is not None
    assert after is not None
    assert memory.peak >= held
    assert memory.peak - after > 50 << 20

"""What the durability benchmark counts as hashing is there: a method that was renamed must not be timed as nothing."""

from __future__ import annotations

from agentmem.store import seals
from benchmarks.durability import HashClock


def test_the_clock_runs_around_everything_that_hashes() -> None:
    """Entered, counted, and put back as it was."""
    clock, before = HashClock(), seals.row_sum
    with clock.running():
        assert seals.row_sum is not before
        for number in range(2_000):
            seals.row_sum("turns", number, "text" * 200)
        assert clock.take() > 0 and clock.take() == 0
    assert seals.row_sum is before

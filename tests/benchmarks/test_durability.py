"""What the durability benchmark counts as hashing is there: a method that was renamed must not be timed as nothing."""

from __future__ import annotations

from agentmem.store import seals
from agentmem.store.pages import PageTable
from benchmarks.durability import Clocks, Turns, verifying


def test_the_clocks_run_around_everything_that_hashes_and_reads() -> None:
    """Entered, counted, and put back as it was."""
    clocks, before = Clocks(), (seals.row_sum, PageTable.check_cells)
    with clocks.running():
        assert seals.row_sum is not before[0] and PageTable.check_cells is not before[1]
        for number in range(2_000):
            seals.row_sum("turns", number, "text" * 200)
        checks, reads, hashing = clocks.take()
        assert hashing > 0 and (checks, reads) == (0, 0)
        assert clocks.take() == (0, 0, 0)
    assert (seals.row_sum, PageTable.check_cells) == before


def test_what_reads_take_longer_is_verifying() -> None:
    """Turn by turn, and with what is hashed elsewhere; what an unverified read costs as well is not."""
    checked = Turns(reads=[0.5, 0.75], hashing=[0.25, 0.0], checks=[9.0, 9.0])

    assert verifying(checked, Turns(reads=[0.25, 0.5])) == [0.5, 0.25]

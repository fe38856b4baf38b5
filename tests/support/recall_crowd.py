"""Processes that share a journal of cells: they add to it, or hold a claim until they are killed.

Run as ``python -m support.recall_crowd add JOURNAL NAME COUNT`` or ``... hold CLAIMS``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from benchmarks.recall.cells import Cell, CellKey
from benchmarks.recall.claims import Claims
from benchmarks.recall.journal import Journal

KEY = CellKey("codes", 400, "codes-0-0", "default", "abc")


def crowd_cell(name: str, number: int) -> Cell:
    """A cell whose line is longer than a pipe's or a page's worth."""
    key = CellKey("codes", number, name, "default", "d")
    return Cell(key, "done", extra={"text": f"{name} {number} " * 1000})


def main() -> None:
    """Do what is asked."""
    what, path = sys.argv[1], Path(sys.argv[2])
    if what == "add":
        journal = Journal(path)
        for number in range(int(sys.argv[4])):
            journal.add(crowd_cell(sys.argv[3], number))
        return
    with Claims(path).claim(KEY) as ours:
        print("held" if ours else "not held", flush=True)
        time.sleep(600)


if __name__ == "__main__":
    main()

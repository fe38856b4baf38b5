"""Several processes of one command, which share its cells; the one that started them shows how far they are.

A worker's standard input is a pipe from the process that started it: when that is closed, or its holder dies, the
worker interrupts itself. Knows no model.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from benchmarks.recall.cells import Cell, CellKey, Left
from benchmarks.recall.journal import Journal
from benchmarks.recall.running import Screen

ROOT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.5
PATIENCE_SECONDS = 60
"""How long a worker may take to stop before it is killed."""
TAIL = 800
"""Characters that are shown of what a worker said before it died."""


class Crew:
    """Workers at work; leaving the context stops those that still are.

    Args:
        arguments: of ``python -m benchmarks.recall``.
        count: how many workers.
    """

    def __init__(self, arguments: Sequence[str], count: int) -> None:
        self._command = [sys.executable, "-m", "benchmarks.recall", *arguments]
        self._count = count
        self._workers: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []

    def __enter__(self) -> Crew:
        place = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
            "OMP_NUM_THREADS": str(threads_each(self._count)),
        }
        for _ in range(self._count):
            said = tempfile.TemporaryFile()  # closed with its process
            worker = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env=place,
                start_new_session=True,  # an interrupt at the terminal reaches them through us alone
            )
            self._workers.append((worker, said))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker, _ in self._workers:
            assert worker.stdin is not None
            worker.stdin.close()
        for worker, said in self._workers:
            try:
                worker.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            said.close()

    @property
    def running(self) -> int:
        """How many are still at work."""
        return sum(worker.poll() is None for worker, _ in self._workers)

    @property
    def deaths(self) -> list[str]:
        """For each worker that ended otherwise than well: its exit status, and the last that it said."""
        ended = [(worker.poll(), said) for worker, said in self._workers]
        return [f"a worker ended with {code}: {_tail(said)}" for code, said in ended if code]


def threads_each(count: int) -> int:
    """Threads of each of so many workers: what the user says, else an even part of the processor's cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() else max(1, (os.cpu_count() or 1) // count)


def attend(
    crew: Crew, journal: Journal, keys: Sequence[CellKey], screen: Screen
) -> tuple[list[Cell], Left, list[str]]:
    """Show each cell as it is finished until no worker is left.

    Returns:
        The cells that are done, in order; what was left undone; what workers that died said.
    """
    told: set[CellKey] = set()
    running, new = crew.running, False
    while True:
        journal.refresh()
        for key in keys:
            cell = journal.settled(key)
            if cell is not None and key not in told:
                screen.cell(cell, new=new)
                told.add(key)
        if not running:
            break
        screen.say(f"workers: {running}")
        time.sleep(POLL_SECONDS)
        running, new = crew.running, True
    cells = [cell for key in keys if (cell := journal.settled(key)) is not None]
    return cells, Left(unfinished=len(keys) - len(cells)), crew.deaths


def stop_with_parent() -> None:
    """In a worker: interrupt this process when standard input ends."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=wait, daemon=True).start()


def _tail(said: IO[bytes]) -> str:
    said.seek(0)
    return said.read().decode(errors="replace")[-TAIL:].strip()

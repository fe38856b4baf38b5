"""What durability costs, as shares of a turn: checksums, the durable commit, encryption. Prints ratios of one run.

    python -m benchmarks.durability             smollm2-135m, 4,000 tokens of history, 9 turns of each kind
    python -m benchmarks.durability --quick     1,200 tokens, 3 turns: to see that everything works

A turn is a question of some 40 tokens and a reply of 32. Agents take turns, so that all see the same machine; each is
opened for two turns. What encryption costs is shown for both, since an opening's first turn also reads digests and
words; checksums and commits are the first turn's.

*Checksums* is how much longer a turn takes because what it reads is verified: its reads of keys and values, beside
those of an agent whose pages are not compared, and all other time spent on hashing (digests, rows of the index, new
pages). *Time inside them* is no promise: it counts waiting for bytes from memory, too, which whoever copies
them next has no need to wait for. *Commit* is the time from the last token to the acknowledgement (checksums of new
pages, sync, index) and the writing of new keys and values before it. *Encryption* is how much longer an encrypted
agent's turn takes. Commits are timed on the clock, since they wait for the disk; all else in seconds that the
turn's own thread computed, which other work on the machine hardly lengthens. (Added up over all threads it would hide
what one does while the others wait and spin.) Exits with 1 when a promise was not kept.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console
from rich.table import Table

from agentmem import AgentMemory, MemoryKey
from agentmem.engine.model import LanguageModel
from agentmem.store import DiskHome, seals
from agentmem.store.digest_log import DiskDigestLog
from agentmem.store.log import DiskTokenLog
from agentmem.store.pages import PageTable
from benchmarks.history import text_of
from benchmarks.run_facts import run_facts, warn_if_busy
from benchmarks.timed_store import TimedHome

FIRST = "encryption, first turn of an opening"
PROMISES = {"checksums": 0.02, "commit": 0.05, "encryption": 0.10, FIRST: 0.10}
"""The largest share of a turn that each may take."""
QUESTION = (
    "Question {number}: what do you remember about the lantern, and who was asked for money? Tell me all."
)


class WorkClock:
    """Seconds that a thread computed in some methods since the last ``take``; nested calls count once.

    Args:
        methods: (owner, name).
        outside: clocks that have counted already what they call.
    """

    def __init__(self, *methods: tuple[object, str], outside: Sequence[WorkClock] = ()) -> None:
        self._methods = methods
        self._outside = outside
        self._seconds = 0.0
        self.counting = False

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed."""

        def timed(*values: Any, **options: Any) -> Any:
            if self.counting or any(clock.counting for clock in self._outside):
                return work(*values, **options)
            self.counting = True
            started = time.thread_time()
            try:
                return work(*values, **options)
            finally:
                self._seconds += time.thread_time() - started
                self.counting = False

        return timed

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time them from now on."""
        with ExitStack() as stack:
            for owner, name in self._methods:
                stack.enter_context(patch.object(owner, name, self.around(getattr(owner, name))))
            yield

    def take(self) -> float:
        """What was counted; the clock starts at zero again."""
        taken, self._seconds = self._seconds, 0.0
        return taken


class Clocks:
    """What is timed of a turn, whoever's it is."""

    def __init__(self) -> None:
        self.checks = WorkClock((PageTable, "check_cells"), (PageTable, "check_slots"))
        self.reads = WorkClock((DiskTokenLog, "read"), (DiskTokenLog, "gather"))
        self.hashing = WorkClock(
            (PageTable, "sums_of"),
            (DiskDigestLog, "_unharmed"),
            (DiskDigestLog, "changed_sums"),
            (seals, "row_sum"),
            outside=(self.reads, self.checks),
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time everything from now on."""
        with self.checks.running(), self.reads.running(), self.hashing.running():
            yield

    def take(self) -> tuple[float, float, float]:
        """Seconds in checks, reads and all other hashing; they start at zero again."""
        return self.checks.take(), self.reads.take(), self.hashing.take()


@dataclass
class Turns:
    """Seconds per turn of one agent: on the clock, and of computing."""

    whole: list[float] = field(default_factory=list)
    computed: list[float] = field(default_factory=list)
    checks: list[float] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)
    hashing: list[float] = field(default_factory=list)
    commit: list[float] = field(default_factory=list)


def ratio(parts: list[float], wholes: list[float]) -> float:
    """The median of the turns' own ratios."""
    return statistics.median(part / whole for part, whole in zip(parts, wholes, strict=True))


class Side:
    """One agent, whose turns are timed."""

    def __init__(
        self, model: LanguageModel, folder: Path, clocks: Clocks, key: MemoryKey | None = None
    ) -> None:
        self.turns = Turns()
        """First ones of an opening."""
        self.later = Turns()
        self._model = model
        self._clocks = clocks
        self._home = TimedHome(DiskHome(folder, key=key))

    def read(self, tokens: int) -> None:
        """Give it a history."""
        with self._resumed() as memory:
            memory.observe(text_of(self._model.tokenizer, tokens, seed=20))

    def turn(self, number: int, reply: int) -> None:
        """Open it, and time two turns."""
        with self._resumed() as memory:
            for turns in (self.turns, self.later):
                self._clocks.take()
                self._home.clock.take()
                started, computed = time.perf_counter(), time.thread_time()
                memory.chat(QUESTION.format(number=number), max_new_tokens=reply)
                turns.computed.append(time.thread_time() - computed)
                turns.whole.append(time.perf_counter() - started)
                for kept, seconds in zip(
                    (turns.checks, turns.reads, turns.hashing), self._clocks.take(), strict=True
                ):
                    kept.append(seconds)
                turns.commit.append(sum(self._home.clock.take().values()))

    def forget(self) -> None:
        """Drop what was timed."""
        self.turns, self.later = Turns(), Turns()

    def _resumed(self) -> AgentMemory:
        return AgentMemory.resume("ada", model=self._model, home=self._home)


class Trusting(Side):
    """An agent whose pages are not compared with their checksums when they are read."""

    def turn(self, number: int, reply: int) -> None:
        """See :meth:`Side.turn`."""
        with (
            patch.object(PageTable, "check_cells", _believe),
            patch.object(PageTable, "check_slots", _believe),
        ):
            super().turn(number, reply)


def _believe(*_: object) -> None:
    """What a page holds is what was written."""


def main() -> int:
    """Measure, print, judge; returns the exit code."""
    asked = _arguments()
    console, facts = Console(), run_facts()
    warn_if_busy(console, facts)
    model, clocks = LanguageModel.load(asked.model), Clocks()
    with tempfile.TemporaryDirectory(dir=asked.folder, prefix="agentmem-bench-") as folder, clocks.running():
        plain = Side(model, Path(folder, "plain"), clocks)
        trusting = Trusting(model, Path(folder, "trusting"), clocks)
        encrypted = Side(model, Path(folder, "encrypted"), clocks, MemoryKey.generate())
        sides = (plain, trusting, encrypted)
        for side in sides:
            side.read(asked.tokens)
            side.turn(0, asked.reply)  # first calls of libraries are not timed
            side.forget()
        for number in range(asked.turns):
            for side in sides:
                side.turn(number, asked.reply)
    return _judged(console, asked, facts, plain, trusting, encrypted)


def verifying(checked: Turns, trusting: Turns) -> list[float]:
    """Seconds of each turn that go into checksums: what reads take longer, and all other hashing."""
    return [
        reads - without + hashing
        for reads, without, hashing in zip(checked.reads, trusting.reads, checked.hashing, strict=True)
    ]


def _judged(
    console: Console,
    asked: argparse.Namespace,
    facts: dict[str, str],
    open_: Side,
    trusting: Side,
    locked: Side,
) -> int:
    plain, encrypted = open_.turns, locked.turns
    inside = [sum(both) for both in zip(plain.checks, plain.hashing, strict=True)]
    shares = {
        "checksums": ratio(verifying(plain, trusting.turns), plain.computed),
        "commit": ratio(plain.commit, plain.whole),
        "encryption": ratio(locked.later.computed, open_.later.computed) - 1,
        FIRST: ratio(encrypted.computed, plain.computed) - 1,
    }
    table = Table(
        title=f"{asked.model}, {asked.tokens:,} tokens of history, {asked.turns} turns of each kind"
    )
    for column in ("of a turn", "median", "promised at most", "kept"):
        table.add_column(column)
    for name, share in shares.items():
        kept = "yes" if share <= PROMISES[name] else "NO"
        table.add_row(name, f"{share:.2%}", f"{PROMISES[name]:.0%}", kept)
    table.add_row("time inside checksums", f"{ratio(inside, plain.computed):.2%}", "", "")
    console.print(table)
    console.print(
        f"A turn takes {statistics.median(plain.whole):.2f} s plain, {statistics.median(encrypted.whole):.2f} s "
        f"encrypted. {facts['cpu']}, {facts['threads']} threads, torch {facts['torch']}, load {facts['load']}."
    )
    return int(any(share > PROMISES[name] for name, share in shares.items()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.durability", description="What durability costs, as shares of a turn."
    )
    parser.add_argument("--model", default="smollm2-135m", help="a model's name (default: smollm2-135m)")
    parser.add_argument("--tokens", type=int, help="tokens of history (default: 4000)")
    parser.add_argument("--turns", type=int, help="turns of each kind (default: 9)")
    parser.add_argument("--reply", type=int, default=32, help="tokens of a reply (default: 32)")
    parser.add_argument("--folder", type=Path, help="where agents are kept meanwhile (default: the system's)")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    asked = parser.parse_args()
    asked.tokens = asked.tokens or (1_200 if asked.quick else 4_000)
    asked.turns = asked.turns or (3 if asked.quick else 9)
    return asked


if __name__ == "__main__":
    sys.exit(main())

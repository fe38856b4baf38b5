"""Gate 3, exhaustively: each bit and each length of every file of a small store, changed in place.

A bit of a byte that is not zero is changed alone, and the store is opened and read as a whole. Most zero bytes are
space that nothing uses: their bits are changed 64 at a time, and a group that is refused is halved until each bit
that is refused stands alone. A bit of the write-ahead log, and each of its lengths, is first shown to SQLite alone:
where it drops the newest commit the opening is bound to refuse, as the mark says that there was one; where it does
not, the store is opened and read like the others.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from agentmem.errors import AgentMemError
from agentmem.store.mark import CommitMark
from faults import children
from faults.trees import scratch
from support.flipping import LivedIn, answers, equal

GROUP = 64
LOG = Path("agent.db-wal")
RIGHT, REFUSED = "right", "refused"
_COUNTS = "tried "
Bit = tuple[Path, int]
"""A file, and the number of a bit in it."""


@dataclass(frozen=True)
class Share:
    """The ``number``-th of ``of`` equal shares of all there is to try on one store."""

    wal: bool
    number: int
    of: int


@dataclass(frozen=True)
class Tried:
    """How many bits were changed alone, how many of the log were shown to SQLite first, how many in groups."""

    alone: int
    logged: int
    grouped: int
    lengths: int

    @property
    def cases(self) -> int:
        """All of them."""
        return self.alone + self.logged + self.grouped + self.lengths


def everything(*, seed: int, jobs: int, parts: int = 1) -> tuple[Tried, list[str]]:
    """What was tried, and what went wrong; with ``parts`` one of so many cases alone."""
    shares = [Share(wal, number, jobs * parts) for wal in (False, True) for number in range(jobs)]
    said = children.spread(shares, lambda share: _tried(share, seed), jobs)
    counts = [[int(number) for number in text.split()[1:]] for text in said if text.startswith(_COUNTS)]
    failures = [text for text in said if not text.startswith(_COUNTS)]
    tried = zip([0] * 4, *counts, strict=True)  # zeros: a worker that ended early counted nothing
    return Tried(*map(sum, tried)), failures


def _tried(share: Share, seed: int) -> list[str]:
    with scratch() as folder:
        store = Lying(folder, wal=share.wal)
        single, zeros = store.bits()
        single, zeros = single[share.number :: share.of], zeros[share.number :: share.of]
        random.Random(seed + share.number).shuffle(zeros)
        failures = [text for bit in single for text in store.alone(bit)]
        failures += [
            text for at in range(0, len(zeros), GROUP) for text in store.together(zeros[at : at + GROUP])
        ]
        lengths = 0
        for name in store.data:
            cuts = range(len(store.data[name]) - 1 - share.number, -1, -share.of)
            lengths += len(cuts)
            failures += store.cut(name, cuts)
        failures += store.put_back_flaws()
    where = "killed" if share.wal else "closed"
    logged = sum(name == LOG for name, _ in single)
    counts = f"{_COUNTS}{len(single) - logged} {logged} {len(zeros)} {lengths}"
    return [counts, *(f"{where}, {text}" for text in failures)]


class Lying:
    """A small store as it lies on disk, closed or as a killed writer left it; changed in place, and put back."""

    def __init__(self, folder: Path, *, wal: bool) -> None:
        self._store = LivedIn(folder, wal=wal)
        self._marked = CommitMark(self._store.folder, "ada").read()
        self.data = {name: data for name, data in self._store.files.items() if data}
        self._fds = {name: os.open(self._store.folder / name, os.O_RDWR) for name in self.data}
        self._wanted = self._answers()

    def bits(self) -> tuple[list[Bit], list[Bit]]:
        """Those to be changed alone, of the log and of bytes that are not zero; and all others."""
        single: list[Bit] = []
        zeros: list[Bit] = []
        for name, data in self.data.items():
            for at, byte in enumerate(data):
                where = single if byte or name == LOG else zeros
                where += [(name, bit) for bit in range(8 * at, 8 * at + 8)]
        return single, zeros

    def alone(self, bit: Bit) -> Iterator[str]:
        """What is wrong with one bit changed; nothing when it is right or refused."""
        outcome = self._flipped([bit])
        if outcome not in (RIGHT, REFUSED):
            yield f"{bit[0]}, bit {bit[1]}: {outcome}"

    def together(self, bits: Sequence[Bit]) -> Iterator[str]:
        """What is wrong with some bits changed at once, halved until each that is refused stands alone."""
        outcome = self._flipped(bits)
        if outcome == RIGHT or (outcome == REFUSED and len(bits) == 1):
            return
        if outcome != REFUSED:
            yield f"{bits}: {outcome}"
        if len(bits) > 1:
            yield from self.together(bits[: len(bits) // 2])
            yield from self.together(bits[len(bits) // 2 :])

    def cut(self, name: Path, lengths: Iterable[int]) -> list[str]:
        """What is wrong with a file cut off, at lengths that fall."""
        failures = []
        for length in lengths:
            os.truncate(self._fds[name], length)
            outcome = self._outcome(name)
            if outcome not in (RIGHT, REFUSED):
                failures.append(f"{name}, cut at {length}: {outcome}")
        os.pwrite(self._fds[name], self.data[name], 0)
        return failures

    def put_back_flaws(self) -> list[str]:
        """Files that are not what they were, or do not say what they did: somebody who was to refuse altered them."""
        changed = []
        for name, data in self.data.items():
            path = self._store.folder / name
            if not path.exists() or path.read_bytes() != data:
                changed.append(f"{name}: put back, and not what it was")
            os.close(self._fds[name])
        outcome = self._opened()
        return changed if outcome == RIGHT else [*changed, f"all put back: {outcome}"]

    def _flipped(self, bits: Sequence[Bit]) -> str:
        for name, bit in bits:
            os.pwrite(self._fds[name], bytes([self.data[name][bit // 8] ^ 1 << bit % 8]), bit // 8)
        try:
            return self._outcome(bits[0][0] if len(bits) == 1 else Path())
        finally:
            for name, bit in bits:
                os.pwrite(self._fds[name], self.data[name][bit // 8 : bit // 8 + 1], bit // 8)

    def _outcome(self, name: Path) -> str:
        if name == LOG and self._newest_commit() < self._marked:
            return REFUSED
        return self._opened()

    def _newest_commit(self) -> int:
        """The newest commit that SQLite finds; that of the mark when it cannot say."""
        path = self._store.folder / "agent.db"
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as conn:
                (found,) = conn.execute("SELECT commits FROM state").fetchone()
        except sqlite3.DatabaseError:
            return self._marked
        return int(found)

    def _opened(self) -> str:
        try:
            found = self._answers()
        except AgentMemError:
            return REFUSED
        except Exception as error:  # noqa: BLE001 - an error of no type of ours is what must not be
            return f"{type(error).__name__}: {error}"
        wrong = [key for key, answer in self._wanted.items() if not equal(found.get(key), answer)]
        return f"silently wrong: {', '.join(wrong)}" if wrong else RIGHT

    def _answers(self) -> dict[str, object]:
        reader = self._store.home.open("ada", read_only=True)
        try:
            return answers(reader, "as it lies")
        finally:
            reader.close()

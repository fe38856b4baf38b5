"""Gate 3: bits change and ends are lost, in every file of a small store, closed and as a killed writer leaves it.

And random bytes in the place of each file. All answers stay right, or a typed error says what is damaged: the store
is opened, everything is read, a turn is written, it is opened again, everything is read again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from faults import children
from faults.every_bit import everything
from faults.results import Found
from faults.trees import scratch
from support.flipping import LivedIn

CHUNK = 100
ALLOWED = ("right", "refused")


@dataclass(frozen=True)
class Chunk:
    """Some contents to try: of which store, and what becomes of which file."""

    wal: bool
    cases: tuple[tuple[Path, str, int], ...]
    """(file, "bit" | "cut" | "noise", which bit, what length, or the seed)"""


def changed_bits(*, bits: int, cuts: int, noise: int, seed: int, jobs: int) -> Found:
    """So many single bits, so many lengths and so many files of random bytes, of all there are, chosen evenly.

    A zero byte stands in for all its bits with one of them: most of a store's zeros are empty space.
    """
    chance = random.Random(seed)
    chunks: list[Chunk] = []
    tried = there = 0
    for wal in (False, True):
        with scratch() as folder:
            files = LivedIn(folder, wal=wal).files
        cases = {
            "bit": [(name, "bit", bit) for name, data in files.items() for bit in _bits(data)],
            "cut": [(name, "cut", length) for name, data in files.items() for length in range(len(data))],
            "noise": [(name, "noise", number) for name in files for number in range(noise)],
        }
        there += len(cases["bit"]) + len(cases["cut"])
        chosen = []
        for kind, limit in (("bit", bits), ("cut", cuts), ("noise", noise)):
            chosen += chance.sample(cases[kind], min(limit // 2, len(cases[kind])))
        chance.shuffle(chosen)
        tried += len(chosen)
        chunks += [Chunk(wal, tuple(chosen[at : at + CHUNK])) for at in range(0, len(chosen), CHUNK)]
    on = f"{bits:,} bits and {cuts:,} lengths of {there:,}, {noise:,} files of noise; closed, and killed with a log"
    return Found(tried, children.spread(chunks, _tried, jobs), on)


def every_bit(*, seed: int, jobs: int) -> Found:
    """Each bit and each length there is, as a reader sees them; see :mod:`faults.every_bit`."""
    tried, failures = everything(seed=seed, jobs=jobs)
    on = (
        f"{tried.alone:,} bits changed alone and {tried.grouped:,} of zero bytes 64 at a time, then opened and all of it "
        f"read; {tried.logged:,} of the log shown to SQLite first; {tried.lengths:,} lengths; closed, and killed"
    )
    return Found(tried.cases, failures, on)


def _bits(data: bytes) -> Iterator[int]:
    for at, byte in enumerate(data):
        if byte:
            yield from range(8 * at, 8 * at + 8)
        else:
            yield 8 * at + at % 8


def _tried(chunk: Chunk) -> list[str]:
    failures = []
    with scratch() as folder:
        store = LivedIn(folder, wal=chunk.wal)
        for name, kind, number in chunk.cases:
            try:
                outcome = store.outcome(name, _changed(store.files[name], kind, number))
            except Exception as error:  # noqa: BLE001 - an error of no type of ours is what must not be
                outcome = f"{type(error).__name__}: {error}"
            if outcome not in ALLOWED:
                failures.append(f"{'killed' if chunk.wal else 'closed'}, {name}, {kind} {number}: {outcome}")
    return failures


def _changed(data: bytes, kind: str, number: int) -> bytes:
    if kind == "cut":
        return data[:number]
    if kind == "bit":
        changed = bytearray(data)
        changed[number // 8] ^= 1 << number % 8
        return bytes(changed)
    chance = random.Random(number)
    if number % 4 == 0 or not data:  # nothing but noise
        return chance.randbytes(chance.randrange(1, len(data) + 4096))
    start = chance.randrange(len(data))
    stop = min(len(data), start + chance.randrange(1, 1 + max(1, len(data) // (4, 40, 400)[number % 3])))
    return data[:start] + chance.randbytes(stop - start) + data[stop:]

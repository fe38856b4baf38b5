"""Gate 7, readers: processes that read beside a writer that adds, forgets, goes back and prunes without a pause.

A reader judges alone what it sees: a turn's state id names the seed of its keys, values and digests, and what was
forgotten when the reader opened is zeros. Knows stores; no model.
"""

from __future__ import annotations

import mmap
import random
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from agentmem.errors import StaleReaderError
from agentmem.store import DiskHome, MemoryKey, Store, Turn
from agentmem.store.base import HEAD
from faults import children
from faults.results import Found
from faults.trees import scratch
from support.stores import contents, create, digests, kv, new_turn, same

BLOCKS = 2
"""Digests of a turn; of one that was forgotten they are others."""
MOST_PROBLEMS = 3
FORGOTTEN = 5_000_000
LOOKS_OF_ONE_OPENING = 3


@dataclass(frozen=True)
class Place:
    """Where an agent lives, and under which key."""

    folder: Path
    key: MemoryKey | None

    def home(self) -> DiskHome:
        """A home with tiny files."""
        return DiskHome(self.folder, segment_tokens=64, digest_blocks=4, key=self.key)


class Shared:
    """What the processes tell each other: verbs done, looks that were whole, and whether the writer is still at it."""

    def __init__(self, readers: int) -> None:
        self._bytes = mmap.mmap(-1, 8 * (readers + 1))

    def count(self, who: int) -> None:
        """One more of process ``who``; 0 is the writer."""
        self._bytes[8 * who : 8 * who + 8] = (self.counted(who) + 1).to_bytes(8, "little")

    def counted(self, who: int) -> int:
        """How often it has counted."""
        return int.from_bytes(self._bytes[8 * who : 8 * who + 8], "little")


def overtaken(*, verbs: int, seed: int, jobs: int) -> Found:
    """So many verbs of a writer on a tmpfs, on a disk and on an encrypted agent, each beside ``jobs`` readers."""
    failures, looks = [], 0
    for name, on_disk, key in (
        ("memory", False, None),
        ("disk", True, None),
        ("encrypted", False, MemoryKey.generate()),
    ):
        with _folder(on_disk=on_disk) as folder:
            place, shared = Place(folder, key), Shared(jobs)
            create(place.home()).close()
            tasks = range(jobs + 1)

            def work(who: int, place: Place = place, shared: Shared = shared) -> list[str]:
                return _reader(place, shared, who, verbs) if who else _writer(place, shared, seed, verbs)

            failures += [f"{name}: {text}" for text in children.spread(tasks, work, jobs + 1)]
            seen = sum(shared.counted(who) for who in tasks[1:])
            if not seen:
                failures.append(f"{name}: no reader saw anything whole")
            looks += seen
    on = f"{looks:,} whole looks of {jobs} readers beside 3 x {verbs:,} verbs; on a tmpfs, on disk, encrypted"
    return Found(looks, failures, on)


@contextmanager
def _folder(*, on_disk: bool) -> Iterator[Path]:
    if on_disk:
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            yield Path(folder).resolve()
    else:
        with scratch() as folder:
            yield folder


# -- the writer ----------------------------------------------------------------------------------------


def _writer(place: Place, shared: Shared, seed: int, verbs: int) -> list[str]:
    chance = random.Random(seed)
    store = place.home().open("ada")
    try:
        while shared.counted(0) < verbs:
            if chance.random() < 0.05:
                store.close()
                store = place.home().open("ada")
            _act(store, chance, number=1 + shared.counted(0))
            shared.count(0)
    except Exception:  # noqa: BLE001
        return [f"the writer: {traceback.format_exc()}"]
    finally:
        while shared.counted(0) < verbs:  # so that the readers end, too
            shared.count(0)
        store.close()
    return []


def _act(store: Store, chance: random.Random, number: int) -> None:
    """One verb."""
    turns, what = store.turns(), chance.random()
    living = [turn for turn in turns if not turn.forgotten]
    if what < 0.4 or len(living) < 3:
        _add(store, turns, number)
    elif what < 0.5:
        at = chance.choice(living)
        _add(store, store.turns(at=at.state_id), number)
    elif what < 0.75:
        store.forget([chance.choice(living).id])
    elif what < 0.85:
        store.rewind(chance.choice(living[-4:]).state_id)
    elif what < 0.9 or len(living) < 10:
        store.collect()
    else:
        store.rewind(living[3].state_id)
        store.collect(prune=True)


def _add(store: Store, path: Sequence[Turn], number: int) -> None:
    """A turn after the last of ``path``, and the digests that are not there."""
    store.begin(path[-1].state_id if path and not path[-1].forgotten else HEAD)
    store.digests.select("small")
    for turn in path[store.digests.count // BLOCKS :]:
        store.digests.append(_digests(turn, forgotten=turn.forgotten))
    count = 10 + number * 37 % 80
    store.log.append(*kv(number, count))
    store.digests.append(digests(number, BLOCKS))
    store.commit(new_turn(number, count))


# -- a reader ------------------------------------------------------------------------------------------


def _reader(place: Place, shared: Shared, who: int, verbs: int) -> list[str]:
    problems: list[str] = []
    chance = torch.Generator().manual_seed(who)
    while shared.counted(0) < verbs and len(problems) < MOST_PROBLEMS:
        try:
            store = place.home().open("ada", read_only=True)
            try:
                for _ in range(LOOKS_OF_ONE_OPENING):
                    found = _look(store, chance)
                    problems += [found] if found else []
                    shared.count(who)
                report = store.verify(deep=bool(shared.counted(who) % 2))
                problems += [] if report.ok else [f"undamaged, but: {report.findings}"]
            finally:
                store.close()
        except StaleReaderError:
            continue
        except Exception:  # noqa: BLE001 - nothing else may come of it
            problems.append(f"a reader: {traceback.format_exc()}")
    return problems


def _look(store: Store, chance: torch.Generator) -> str | None:
    """Everything once, some of it in another order; what is wrong. Raises StaleReaderError."""
    turns, dead = store.turns(), store.log.dead
    if not turns:
        return None
    gone = [any(start <= turn.start and turn.stop <= stop for start, stop in dead) for turn in turns]
    if gone != [turn.forgotten for turn in turns]:
        return f"{dead} is dead, but the turns say {turns}"
    made = [kv(_seed(turn), turn.stop - turn.start) for turn in turns]
    wanted = [
        torch.cat([turn[part][layer] * (not lost) for turn, lost in zip(made, gone, strict=True)], dim=1)
        for layer in range(len(store.log.layout.layers))
        for part in range(2)
    ]
    if not same(contents(store.log), wanted) or not same(*_gathered(store, wanted, chance)):
        return f"keys or values are not those of {turns}"
    return _wrong_digests(store, turns, gone)


def _gathered(
    store: Store, wanted: Sequence[Tensor], chance: torch.Generator
) -> tuple[list[Tensor], list[Tensor]]:
    """Chosen tokens: as the log gives them, and as they must be."""
    found, right = [], []
    for layer, (heads, dim) in enumerate(store.log.layout.layers):
        tokens = torch.randint(store.log.length, (heads, 40), generator=chance)
        outs = [torch.empty(heads, 40, dim) for _ in range(2)]
        store.log.gather(layer, tokens, *outs)
        rows = tokens[..., None].expand(-1, -1, dim)
        found += outs
        right += [all_of.gather(1, rows) for all_of in wanted[2 * layer : 2 * layer + 2]]
    return found, right


def _wrong_digests(store: Store, turns: Sequence[Turn], gone: Sequence[bool]) -> str | None:
    """Digests that a turn begins with are right; those that become wrong in it are gone from the next one."""
    made = [_digests(turn, forgotten=lost) for turn, lost in zip(turns, gone, strict=True)]
    wanted = [torch.cat(parts, dim=1) for parts in zip(*made, strict=True)]
    store.digests.select("small")
    while count := store.digests.count:
        found = [torch.cat(list(store.digests.parts(layer)), dim=1) for layer in range(len(wanted))]
        if same(found, [tensor[:, :count] for tensor in wanted]):
            return None
        store.digests.select("small")
        if store.digests.count >= count:
            return f"{count} digests are not those of {turns}"
    return None


def _digests(turn: Turn, *, forgotten: bool) -> list[Tensor]:
    return digests(_seed(turn) + (FORGOTTEN if forgotten else 0), BLOCKS)


def _seed(turn: Turn) -> int:
    return int(turn.state_id.removeprefix("state-"))

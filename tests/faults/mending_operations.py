"""Verbs that mend: repair, salvage, and the opening of an encrypted agent of each past schema, ready for faults.

What a damaged agent shows is told by ``state_of``, which a plain snapshot cannot: it may be shut, or open with a part of
its keys unreadable.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch

from agentmem.errors import DamagedError
from agentmem.store import DiskHome, Store, Turn
from agentmem.store.encrypted_index import INDEX_FILE
from agentmem.store.mended import Encode
from agentmem.store.segment import segment_spec
from faults.faulted import HomeOf, Prepared, checked, prepare
from faults.operations import (
    SEGMENT_TOKENS,
    Operation,
    disk_home,
    encrypted_home,
    lived,
    nothing,
    seen,
    whole,
    with_ada,
)
from faults.trees import clone, scratch
from support.encoding import again
from support.old_index import make_older_encrypted, versions
from support.stores import LAYOUT

Ways = Callable[[Turn], Sequence[Encode]]


class Mending(Prepared):
    """What the disk would not give while it was read counts as damaged, and is set aside, until it is mended again."""

    def allows(self, found: Any) -> bool:
        """See :class:`Prepared`."""
        return super().allows(found) or found[0] == "damaged"

    def acknowledges(self, found: Any) -> bool:
        """See :class:`Prepared`."""
        return super().acknowledges(found) or found[0] == "damaged"


def mendings(folder: Path) -> list[Prepared]:
    """Repair with a model and without one, plain and encrypted; salvage of a damaged index and of a sound one."""
    folder.mkdir()
    repairs = [*_repairs(folder / "plain", disk_home), *_repairs(folder / "encrypted", encrypted_home)]
    salvages = [*_salvages(folder / "open", disk_home), *_salvages(folder / "locked", encrypted_home)]
    return [*repairs, *salvages]


def _salvages(folder: Path, home_of: HomeOf) -> list[Prepared]:
    folder.mkdir()
    sound, spoilt = folder / "sound", folder / "spoilt"
    lived(home_of(sound))
    clone(sound, spoilt)
    _spoil(home_of(spoilt).folder_of("ada"))
    salvage = _mending("salvage", spoilt, _salvaged, folder / "salvage", home_of)
    assert salvage.before[0] == "shut" and salvage.after[0] != "shut"
    idle = _mending("salvage what is sound", sound, _salvaged, folder / "idle", home_of)
    assert idle.before == idle.after == state_of(home_of(sound))
    return [salvage, idle]


def _repairs(folder: Path, home_of: HomeOf) -> list[Prepared]:
    folder.mkdir()
    sound, harmed = folder / "sound", folder / "harmed"
    lived(home_of(sound))
    clone(sound, harmed)
    _harm(harmed)
    repair = _mending("repair", harmed, _repaired(again), folder / "repair", home_of)
    assert repair.after == state_of(home_of(sound)), "a repair does not give back what there was"
    aside = _mending("repair without the model", harmed, _repaired(lambda _: ()), folder / "aside", home_of)
    assert aside.before[0] == aside.after[0] == "damaged"
    return [repair, aside]


def encrypted_migrations(folder: Path) -> list[Prepared]:
    """Openings of encrypted agents whose tables are those of each past schema."""

    def aged(version: str, home: DiskHome) -> None:
        make_older_encrypted(home, "ada", version)

    operations = [
        Operation(f"migrate to {version}", lived, with_ada(nothing), partial(aged, version))
        for version in versions()[1:]
    ]
    return [prepare(one, folder / str(n), encrypted_home) for n, one in enumerate(operations)]


def state_of(home: DiskHome) -> Any:
    """("whole", everything), ("damaged", what can be seen), or ("shut",) for an agent that is refused."""
    try:
        store = home.open("ada")
    except DamagedError:
        return ("shut",)
    try:
        report = store.verify(deep=True)
        if whole(report):
            return ("whole", seen(store))
        found = sorted((finding.file, tuple(finding.turns)) for finding in report.findings)
        turns = [(turn.state_id, turn.messages, turn.forgotten) for turn in store.turns()]
        return ("damaged", found, turns, list(store.log.dead), _legible(store))
    finally:
        store.close()


def _legible(store: Store) -> list[str | None]:
    """A hash over the keys and values of each turn; None where they cannot be read."""
    found: list[str | None] = []
    for turn in store.turns():
        digest = hashlib.sha256()
        try:
            for layer, (heads, dim) in enumerate(LAYOUT.layers):
                keys, values = torch.empty(2, heads, turn.stop - turn.start, dim)
                store.log.read(layer, turn.start, turn.stop, keys, values)
                digest.update(keys.numpy().tobytes() + values.numpy().tobytes())
        except DamagedError:
            found.append(None)
        else:
            found.append(digest.hexdigest())
    return found


def _mending(
    name: str, base: Path, act: Callable[[DiskHome], None], folder: Path, home_of: HomeOf
) -> Prepared:
    clone(base, folder)
    with scratch() as copy:
        clone(base, copy / "done")
        before = state_of(home_of(copy / "done"))
        act(home_of(copy / "done"))
        after = state_of(home_of(copy / "done"))
    return checked(
        Mending(
            name if home_of == disk_home else f"{name}, encrypted",
            folder,
            lambda folder: act(home_of(folder)),
            lambda folder: state_of(home_of(folder)),
            before,
            after,
            home_of=home_of,
        )
    )


def _repaired(ways: Ways) -> Callable[[DiskHome], None]:
    def act(home: DiskHome) -> None:
        store = home.open("ada")
        try:
            store.repair(ways)
        finally:
            store.close()

    return act


def _salvaged(home: DiskHome) -> None:
    home.salvage("ada")


def _harm(folder: Path) -> None:
    """A bit of a key in the second segment."""
    path = disk_home(folder).folder_of("ada") / "kv/000001.safetensors"
    with path.open("r+b") as file:
        file.seek(segment_spec(LAYOUT, SEGMENT_TOKENS).offset(0, 1, 5))
        (byte,) = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte ^ 4]))


def _spoil(folder: Path) -> None:
    """The row of a turn is gone, without the knowledge of the index's own checks; or a bit of the last record."""
    path = folder / INDEX_FILE
    if path.exists():
        data = bytearray(path.read_bytes())
        data[-40] ^= 4
        path.write_bytes(data)
        return
    with closing(sqlite3.connect(folder / "agent.db")) as db, db:
        db.execute("DELETE FROM turns WHERE id = 2")

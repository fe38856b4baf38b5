"""What a disk may hold after the power fails: every moment, with unsynced changes lost, kept, torn or reordered.

The model is POSIX at its strictest: bytes and size of a file are safe once that file was synced, a name once
its folder was; nothing else is, and what is not safe may have arrived in any order. Some states keep names in
the order they were made, as a journal does. Knows no agents.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from faults.op_log import Op, Tree

_BYTES = ("W", "T", "Z")


@dataclass(frozen=True)
class CrashState:
    """A disk after a crash: ``acknowledged`` is the last mark before it."""

    tree: Tree
    acknowledged: int
    how: str


class Disk:
    """What is safe, and what may be lost. A tree that was handed out is never altered."""

    def __init__(self, tree: Tree) -> None:
        self._safe = _copied(tree)
        self.pending: list[Op] = []
        self.version = 0
        """Rises whenever something more is safe."""

    def do(self, op: Op) -> None:
        """Take an operation in; a sync makes what it covers safe."""
        if op.what != "S":
            self.pending.append(op)
            return
        safe = [one for one in self.pending if op.inode in _touched(one)]
        self.pending = [one for one in self.pending if op.inode not in _touched(one)]
        self.version += bool(safe)
        for one in safe:
            _apply(self._safe, one)

    def after(self, chosen: Sequence[Op]) -> Tree:
        """The safe tree with some of the pending operations."""
        tree = _copied(self._safe)
        for op in chosen:
            _apply(tree, op)
        return tree


def crash_states(before: Tree, ops: Sequence[Op], *, tries: int, seed: int) -> Iterator[CrashState]:
    """Every moment of a record: all unsynced lost, all kept, and ``tries`` random choices; none twice."""
    disk, chance = Disk(before), random.Random(seed)
    acknowledged = 0
    seen: set[object] = set()
    for number, op in enumerate(ops):
        if op.what == "K":
            acknowledged = op.offset
        else:
            disk.do(op)
        choices: list[tuple[str, Sequence[Op]]] = [("lost", ()), ("kept", tuple(disk.pending))]
        choices += [_random(disk.pending, chance) for _ in range(tries if disk.pending else 0)]
        for how, chosen in choices:
            key = (acknowledged, disk.version, tuple(chosen))
            if key not in seen:
                seen.add(key)
                yield CrashState(disk.after(chosen), acknowledged, f"crash after call {number} ({how})")


def _random(pending: Sequence[Op], chance: random.Random) -> tuple[str, list[Op]]:
    """Some of the pending operations, some of them torn; names as a journal keeps them, or in any order."""
    journal = chance.random() < 0.5
    names = sum(op.what not in _BYTES for op in pending)
    kept_names = chance.randint(0, names)
    chosen, number = [], 0
    for op in pending:
        if op.what in _BYTES:
            if chance.random() < 0.5:
                chosen.append(_torn(op, chance) if op.what == "W" and chance.random() < 0.3 else op)
            continue
        if number < kept_names if journal else chance.random() < 0.5:
            chosen.append(op)
        number += 1
    return "journalled" if journal else "reordered", chosen


def _torn(op: Op, chance: random.Random) -> Op:
    """A write of which only a part arrived, cut anywhere."""
    cut = chance.randint(0, len(op.data))
    if chance.random() < 0.5:
        return Op(op.what, op.inode, op.folder, op.name, op.offset, op.data[:cut], cut)
    return Op(op.what, op.inode, op.folder, op.name, op.offset + cut, op.data[cut:], len(op.data) - cut)


def _copied(tree: Tree) -> Tree:
    folders = {inode: dict(entries) for inode, entries in tree.folders.items()}
    return Tree(tree.root, dict(tree.files), folders)


def _touched(op: Op) -> tuple[int, ...]:
    """The inodes whose sync makes an operation safe: the file's for bytes, the folder's for names."""
    if op.what in _BYTES:
        return (op.inode,)
    return (op.folder, op.offset) if op.what in ("R", "X") else (op.folder,)


def _apply(tree: Tree, op: Op) -> None:
    entries = tree.folders.setdefault(op.folder, {})
    if op.what == "W":
        data = bytearray(tree.files.get(op.inode, b""))
        data.extend(bytes(max(0, op.offset + len(op.data) - len(data))))
        data[op.offset : op.offset + len(op.data)] = op.data
        tree.files[op.inode] = bytes(data)
    elif op.what == "T":
        data = bytearray(tree.files.get(op.inode, b""))
        tree.files[op.inode] = bytes(data[: op.offset].ljust(op.offset, b"\0"))
    elif op.what == "Z":
        data = bytearray(tree.files.get(op.inode, b""))
        stop = min(len(data), op.offset + op.length)
        data[op.offset : stop] = bytes(max(0, stop - op.offset))
        tree.files[op.inode] = bytes(data)
    elif op.what == "M":
        tree.folders.setdefault(op.inode, {})  # what was made in it before may be safe already
        entries[op.name] = op.inode
    elif op.what in ("C", "L"):
        entries[op.name] = op.inode
    elif op.what == "U":
        entries.pop(op.name, None)
    elif op.what in ("R", "X"):
        old, new = op.name.split("/")
        entries.pop(old, None)
        if op.what == "X":
            entries[old] = op.length
        tree.folders.setdefault(op.offset, {})[new] = op.inode

"""What a process did to the files below a folder, call by call, as the shim recorded it.

Knows inodes, names and bytes; nothing of agents. Files are told apart by inode: names may move.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from faults import children, shim

_HEAD = struct.Struct("<IIQQQQ")


@dataclass(frozen=True)
class Op:
    """One call that changed something, or made changes durable.

    ``what``: "W" write, "T" truncate, "Z" punch, "S" sync, "C" new file, "M" new folder, "L" link,
    "U" unlink, "R" rename, "X" exchange, "K" a mark of ours.
    """

    what: str
    inode: int
    folder: int
    name: str
    offset: int
    data: bytes
    length: int


@dataclass(frozen=True)
class Tree:
    """Files and folders by inode: ``files`` their bytes, ``folders`` their entries by name."""

    root: int
    files: dict[int, bytes]
    folders: dict[int, dict[str, int]]


def recorded(folder: Path, body: Callable[[], None]) -> tuple[Tree, list[Op], children.Outcome]:
    """Run ``body`` in a forked child; what was below ``folder`` before, and all it did there."""
    before = tree_of(folder)
    with tempfile.TemporaryFile() as log:

        def run() -> None:
            shim.record(folder, log.fileno())
            try:
                body()
            finally:
                shim.record(folder, -1)

        outcome = children.tried(run)
        log.seek(0)
        return before, parsed(log.read()), outcome


def tree_of(folder: Path) -> Tree:
    """A folder as it is."""
    tree = Tree(folder.stat().st_ino, {}, {})
    for parent, folders, names in os.walk(folder):
        entries = {name: Path(parent, name).stat().st_ino for name in (*folders, *names)}
        tree.folders[Path(parent).stat().st_ino] = entries
        for name in names:
            tree.files[entries[name]] = Path(parent, name).read_bytes()
    return tree


def laid_down(tree: Tree, folder: Path) -> None:
    """Make an empty folder hold what a tree holds; a file with several names stays one file."""
    seen: dict[int, Path] = {}
    pending = [(tree.root, folder)]
    while pending:
        inode, path = pending.pop()
        for name, child in tree.folders[inode].items():
            place = path / name
            if child in tree.folders:
                place.mkdir(mode=0o700)
                pending.append((child, place))
            elif child in seen:
                os.link(seen[child], place)
            else:
                place.write_bytes(tree.files.get(child, b""))
                place.chmod(0o600)
                seen[child] = place


def parsed(data: bytes) -> list[Op]:
    """The record as operations, in order."""
    ops, at = [], 0
    while at < len(data):
        what, name_length, inode, folder, offset, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        name = data[at : at + name_length].decode()
        at += name_length
        content = b""
        if chr(what) == "W":
            content = data[at : at + length]
            at += length
        ops.append(Op(chr(what), inode, folder, name, offset, content, length))
    return ops

"""Folders of small files: copied with their hard links, in memory where there is some."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.stores import memory_folder


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that goes when the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir=memory_folder()))
    try:
        yield folder.resolve()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clone(source: Path, target: Path) -> None:
    """A copy of a tree in which files that were one file are one file again."""
    seen: dict[int, Path] = {}
    for parent, _, names in os.walk(source):
        folder = target / Path(parent).relative_to(source)
        folder.mkdir(mode=0o700, exist_ok=True)
        for name in names:
            path = Path(parent, name)
            inode = path.stat().st_ino
            if inode in seen:
                os.link(seen[inode], folder / name)
            else:
                seen[inode] = Path(shutil.copy2(path, folder / name))


def replace(source: Path, target: Path) -> None:
    """Make ``target`` a copy of ``source``, whatever it was."""
    shutil.rmtree(target, ignore_errors=True)
    clone(source, target)

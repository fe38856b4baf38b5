"""Which weights these are: digests of files, computed once and remembered while the file is unchanged.

A file counts as unchanged while its real path, size, modification time (ns) and inode are the same.
What is remembered is a cache: lost or unreadable, it is computed again. Knows no model formats.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import xxhash

from agentmem.engine.cache import ModelCache

CHUNK_BYTES = 1 << 22


class FileDigests:
    """Digests of files, remembered in a cache."""

    def __init__(self, cache: ModelCache) -> None:
        self._cache = cache

    def sha256(self, path: Path) -> str:
        """SHA-256 of the file's bytes, in hex: what files are pinned by."""
        return self._digest(path, "sha256", hashlib.sha256)

    def xxh3(self, path: Path) -> str:
        """XXH3-128 of the file's bytes, in hex: fast, for telling weights apart."""
        return self._digest(path, "xxh3", xxhash.xxh3_128)

    def record(self, path: Path, **digests: str) -> None:
        """Remember digests that were computed while the file was written."""
        self._write(path, {**self._read(path), **digests})

    def _digest(self, path: Path, kind: str, make: Callable[[], Any]) -> str:
        known = self._read(path).get(kind)
        if known is not None:
            return known
        digest = make()
        before = _identity(path)
        with path.open("rb") as source:
            while piece := source.read(CHUNK_BYTES):
                digest.update(piece)
        text = str(digest.hexdigest())
        if _identity(path) == before:
            self.record(path, **{kind: text})
        return text

    def _slot(self, path: Path) -> Path:
        key = xxhash.xxh3_64(os.fsencode(os.path.realpath(path))).hexdigest()
        return self._cache.made("digests") / f"{key}.json"

    def _read(self, path: Path) -> dict[str, str]:
        """What is remembered of this very file; empty when nothing is, or it changed since."""
        try:
            note = json.loads(self._slot(path).read_text("utf-8"))
            if note["identity"] == _identity(path):
                return {str(kind): str(value) for kind, value in note["digests"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        return {}

    def _write(self, path: Path, digests: dict[str, str]) -> None:
        """Remember, if the cache can be written; a read-only one only costs time."""
        try:
            slot = self._slot(path)
            handle, name = tempfile.mkstemp(prefix=".", dir=slot.parent)
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                json.dump({"identity": _identity(path), "digests": digests}, out)
            Path(name).replace(slot)
        except OSError:
            pass


def _identity(path: Path) -> list[Any]:
    """What must be unchanged for a digest to hold still."""
    stat = path.stat()
    return [os.path.realpath(path), stat.st_size, stat.st_mtime_ns, stat.st_ino]


def digest_files(files: Sequence[Path], digests: FileDigests) -> str:
    """One digest over several weight files: their names and contents, in the order of their names."""
    total = xxhash.xxh3_128()
    for path in sorted(files, key=lambda p: p.name):
        total.update(f"{path.name}\0{path.stat().st_size}\0{digests.xxh3(path)}\n".encode())
    return f"xxh3-128:{total.hexdigest()}"

"""The user's cache folder: where downloads and conversions lie, and how processes share it.

Everything in it can be made again; nothing of an agent is ever kept here. Knows no model.

    <cache>/models/files/<file name>      downloaded, its hash checked
    <cache>/models/converted/<key>/       a GGUF as safetensors
    <cache>/models/digests/<key>.json     digests of files already hashed once
    <cache>/models/locks/<key>.lock       one process at a time does one piece of work
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

CACHE_VARIABLE = "AGENTMEM_CACHE"
Part = Literal["files", "converted", "digests", "locks"]


@dataclass(frozen=True)
class ModelCache:
    """Paths under one cache folder. Folders appear when first written to."""

    root: Path

    def part(self, part: Part) -> Path:
        """One part of the cache, whether or not it is there yet."""
        return self.root / "models" / part

    def made(self, part: Part) -> Path:
        """One part of the cache, made when missing."""
        folder = self.part(part)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def sweep(self, part: Part, key: str) -> None:
        """Remove what killed writers of ``key`` left behind; call it while holding the key's lock."""
        for leftover in self.made(part).glob(f".{key}.*"):
            remove(leftover)

    @contextmanager
    def lock(self, key: str, waiting: Callable[[str], None]) -> Iterator[None]:
        """Hold the named lock, which dies with its process. ``waiting`` is told if another holds it."""
        lock = FileLock(self.made("locks") / f"{key}.lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting(f"another process is at work on {key}; waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def default_cache() -> ModelCache:
    """The cache named by ``AGENTMEM_CACHE``, else the platform's user cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return ModelCache(Path(chosen).expanduser() if chosen else user_cache_path("agentmem"))


def bytes_used(path: Path) -> int:
    """Bytes of a file, or of all files under a folder; 0 when there is nothing."""
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else 0


def remove(path: Path) -> None:
    """Remove a file or a whole folder; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

"""The user's cache folder: where downloads and conversions lie, and how processes share it.

Everything in it can be made again; nothing of an agent is ever kept here. Knows no model.

    <cache>/models/files/<file name>      downloaded, its hash checked
    <cache>/models/converted/<key>/       a GGUF as safetensors
    <cache>/models/digests/<key>.json     digests of files already hashed once
    <cache>/models/locks/<key>.lock       one process at a time does one piece of work
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

CACHE_VARIABLE = "AGENTMEM_CACHE"


def default_cache() -> ModelCache:
    """The cache named by ``AGENTMEM_CACHE``, else the platform's user cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return ModelCache(Path(chosen).expanduser() if chosen else user_cache_path("agentmem"))


@dataclass(frozen=True)
class ModelCache:
    """Paths under one cache folder. Folders appear when first written to."""

    root: Path

    def folder(self, kind: str) -> Path:
        """The folder of that kind, made when missing."""
        folder = self.root / "models" / kind
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def file(self, file_name: str) -> Path:
        """Where a downloaded file lies, or will."""
        return self.root / "models" / "files" / file_name

    def converted(self, key: str) -> Path:
        """Where a conversion lies, or will."""
        return self.root / "models" / "converted" / key

    def sweep(self, kind: str, key: str) -> None:
        """Remove what killed writers of ``key`` left behind; call it while holding the key's lock."""
        for leftover in self.folder(kind).glob(f".{key}.*"):
            remove(leftover)

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold the named lock; waits while another process, or thread, holds it. Freed on death."""
        handle = os.open(self.folder("locks") / f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


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

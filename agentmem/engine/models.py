"""The models on this machine: list, pull, remove. What `agentmem models` stands on.

Lists the built-ins and what GGUF files were converted to; models of the Hugging Face hub lie in its
own cache and are managed by its own tool. Loads nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agentmem.engine.cache import ModelCache, bytes_used, default_cache, remove
from agentmem.engine.catalog import CATALOG, CatalogEntry
from agentmem.engine.gguf_convert import conversion_key, read_note
from agentmem.engine.loading import ModelLoader, resolve
from agentmem.engine.progress import SILENT, Progress
from agentmem.errors import ModelNotFoundError


@dataclass(frozen=True)
class ModelInfo:
    """One model. ``download_bytes`` is what fetching it costs, 0 for a local file."""

    name: str
    licence: str
    download_bytes: int
    bytes_used: int
    """Bytes in the cache, download and conversion together."""
    ready: bool
    """True when loading needs neither network nor conversion."""
    source: str


def list_models(cache: ModelCache | None = None) -> list[ModelInfo]:
    """The built-ins first, then conversions of the user's own GGUF files."""
    place = cache if cache is not None else default_cache()
    return [_built_in(entry, place) for entry in CATALOG.values()] + [
        ModelInfo(
            name=note["gguf"],
            licence="unknown",
            download_bytes=0,
            bytes_used=bytes_used(folder),
            ready=True,
            source=f"converted from a GGUF file, {folder.name}",
        )
        for folder, note in _conversions(place)
    ]


def pull(name: str, *, cache: ModelCache | None = None, progress: Progress = SILENT) -> Path:
    """Fetch and convert a model without loading it; returns its folder. Errors as for loading."""
    return ModelLoader(cache).bring(resolve(name), progress=progress)


def remove_model(name: str, *, cache: ModelCache | None = None) -> int:
    """Remove a model's files from the cache; returns the bytes freed. The user's own files stay.

    Raises:
        ModelNotFoundError: no such model is in the cache.
    """
    place = cache if cache is not None else default_cache()
    found = _paths(name, place)
    freed = sum(bytes_used(path) for path in found)
    for path in found:
        remove(path)
    return freed


def _built_in(entry: CatalogEntry, cache: ModelCache) -> ModelInfo:
    file, folder = _places(entry, cache)
    return ModelInfo(
        name=entry.name,
        licence=entry.licence,
        download_bytes=entry.size,
        bytes_used=bytes_used(file) + bytes_used(folder),
        ready=read_note(folder) is not None,
        source=f"built-in: {entry.hub_repo or entry.parts[0].requirement}",
    )


def _places(entry: CatalogEntry, cache: ModelCache) -> tuple[Path, Path]:
    return cache.part("files") / entry.file_name, cache.part("converted") / conversion_key(entry.sha256)


def _conversions(cache: ModelCache) -> list[tuple[Path, dict[str, str]]]:
    """Complete conversions that belong to no built-in entry, older conversion versions included."""
    current = {conversion_key(entry.sha256) for entry in CATALOG.values()}
    folders = sorted(cache.part("converted").glob("[!.]*"))
    notes = [(folder, read_note(folder)) for folder in folders if folder.name not in current]
    return [(folder, note) for folder, note in notes if note is not None]


def _paths(name: str, cache: ModelCache) -> Sequence[Path]:
    if name in CATALOG:
        found = [path for path in _places(CATALOG[name], cache) if path.exists()]
    else:
        found = [folder for folder, note in _conversions(cache) if name in {note["gguf"], folder.name}]
    if not found:
        known = [info.name for info in list_models(cache) if info.bytes_used]
        raise ModelNotFoundError(
            f"{name!r} is not in the cache; what is there: {', '.join(known) or 'nothing'}."
        )
    return found

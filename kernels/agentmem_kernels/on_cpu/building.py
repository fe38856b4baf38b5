"""Compiles the kernels once, and keeps them in the user's cache. Knows compilers and files, nothing of tensors.

The file's name is a hash of all that it was made from, so another version, compiler or flag makes another file. It is
put in place whole, and loaded only if nobody but this user could have written it.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

SOURCES = ("attend.c", "enter.c", "int8.c", "masses.c")
HEADERS = ("common.h",)
FLAGS = (
    *("-O3", "-std=gnu11", "-ffp-contract=off", "-shared", "-fPIC"),
    *("-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512bf16"),
)
PATIENCE = 120.0
"""Seconds that a compiler may take; it takes two."""
_HERE = Path(__file__).parent
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class BuildError(Exception):
    """The kernels cannot be compiled or kept here; says why and what would help."""


def built() -> Path:
    """The compiled library, made now if it is not there.

    Raises:
        BuildError: there is no compiler, it fails, or there is no place of this user's own.
    """
    compiler = _compiler()
    try:
        folder = _folder()
        path = folder / f"{_fingerprint(compiler)}.so"
        if not path.exists():
            _compile(compiler, path)
        _check_private(path)
    except (OSError, RuntimeError) as error:  # the second: there is no home
        raise BuildError(
            f"compiled kernels cannot be kept: {error}; set XDG_CACHE_HOME to a folder of yours"
        ) from error
    return path


def discard(path: Path) -> None:
    """Remove a library that does not load, so that the next opening makes it anew."""
    path.unlink(missing_ok=True)


def _compiler() -> list[str]:
    """The compiler's command: ``CC``, or the first that is installed."""
    asked = shlex.split(os.environ.get("CC", ""))
    for command in [asked] if asked else [["cc"], ["gcc"], ["clang"]]:
        found = shutil.which(command[0])
        if found is not None:
            return [found, *command[1:]]
    raise BuildError("there is no C compiler; install gcc or clang")


def _folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(cache) / "agentmem-kernels"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_private(folder)
    return folder


def _check_private(path: Path) -> None:
    """Raises PermissionError if anybody else owns the path or may write it, or it is a link."""
    there = path.lstat()
    if stat.S_ISLNK(there.st_mode) or there.st_uid != os.geteuid() or there.st_mode & _OTHERS_MAY_WRITE:
        raise PermissionError(f"{path} is a link, or others than you own it or may write it")


def _fingerprint(compiler: list[str]) -> str:
    digest = hashlib.sha256()
    there = Path(compiler[0]).stat()
    for part in (*compiler, str(there.st_size), str(there.st_mtime_ns), *FLAGS):
        digest.update(part.encode() + b"\0")
    for name in (*SOURCES, *HEADERS):
        digest.update((_HERE / name).read_bytes() + b"\0")
    return digest.hexdigest()[:32]


def _compile(compiler: list[str], path: Path) -> None:
    """Into a folder beside the path first; what two processes make at once is the same."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / "made.so"
        sources = [str(_HERE / name) for name in SOURCES]
        command = [*compiler, *FLAGS, "-o", str(made), *sources, "-lm"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        except subprocess.TimeoutExpired as error:
            raise BuildError(f"{compiler[0]} did not end within {PATIENCE:.0f} s") from error
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
            raise BuildError(f"{compiler[0]} failed ({last}); set CC to another compiler")
        made.chmod(0o700)
        with made.open("rb") as file:
            os.fsync(file.fileno())
        made.replace(path)

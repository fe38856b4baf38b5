"""File-system steps the store stands on: whole writes, syncing, private modes, freeing space.

Knows nothing of tensors, turns or SQLite. POSIX only. Every function works on the bytes it is told to
and either finishes or raises OSError.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILE_MODE = 0o600
FOLDER_MODE = 0o700

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # the same number on Linux and, as RENAME_SWAP, on macOS
_FALLOC_KEEP_SIZE = 0x01
_FALLOC_PUNCH_HOLE = 0x02
_TMPFS_MAGIC = 0x01021994


def make_folder(path: Path) -> None:
    """Make a folder only its owner can enter; fine if it is there already."""
    path.mkdir(mode=FOLDER_MODE, exist_ok=True)


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """A file descriptor for the duration of a block; symbolic links are refused."""
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        yield fd
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write every byte of ``data`` at ``offset``, however many calls that takes."""
    view = memoryview(data)
    total = view.nbytes
    done = os.pwrite(fd, view, offset)
    while done < total:  # a short write: a full disk reports itself at the next call
        done += os.pwrite(fd, view.cast("B")[done:], offset + done)


def read_all(fd: int, count: int, offset: int) -> bytes:
    """Up to ``count`` bytes from ``offset``; fewer only where the file ends."""
    parts = []
    while count > 0:
        part = os.pread(fd, count, offset)
        if not part:
            break
        parts.append(part)
        count -= len(part)
        offset += len(part)
    return b"".join(parts)


def sync_file(fd: int) -> None:
    """Put a file's bytes, and the size needed to read them, on the medium."""
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # macOS's fsync leaves data in the drive's cache
    else:
        os.fdatasync(fd)


def sync_folder(path: Path) -> None:
    """Put a folder's entries on the medium: new, renamed and removed names."""
    with opened(path, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.fsync(fd)


def exchange(first: Path, second: Path) -> None:
    """Swap two names in one step: at no moment is either missing. Raises OSError where that is not offered."""
    names = os.fsencode(first), os.fsencode(second)
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        failed = libc.renamex_np(*names, _RENAME_EXCHANGE)
    else:
        failed = libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
    if failed:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(first))


def allocated_bytes(path: Path) -> int:
    """Bytes a file really takes on disk, holes not counted."""
    return path.stat().st_blocks * 512


def folder_bytes(path: Path) -> int:
    """Bytes all files below a folder take on disk; one that vanishes meanwhile counts as none."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += allocated_bytes(Path(folder, name))
            except FileNotFoundError:
                continue
    return total


def on_tmpfs(path: Path) -> bool:
    """Whether a folder lies on a tmpfs, where reading a hole through a map takes a free page."""
    if not sys.platform.startswith("linux"):
        return False
    facts = ctypes.create_string_buffer(256)  # struct statfs begins with the type, a long
    failed = ctypes.CDLL(None).statfs(os.fsencode(path), facts)
    return not failed and ctypes.c_long.from_buffer(facts).value == _TMPFS_MAGIC


def punch(fd: int, offset: int, count: int) -> bool:
    """Give a range of a file back to the file system; it reads as zeros. False where that is not offered."""
    if not sys.platform.startswith("linux"):
        return False
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return bool(fallocate(fd, _FALLOC_PUNCH_HOLE | _FALLOC_KEEP_SIZE, offset, count) == 0)


def released_with(owner: object, fd: int) -> weakref.finalize[[int], object]:
    """Closes ``fd`` when it is called, or when an owner that nobody closed is gone. Raises OSError when called."""
    release = weakref.finalize(owner, os.close, fd)
    release.atexit = False
    return release

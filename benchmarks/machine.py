"""Facts of the machine: its name, a process's anonymous memory, and files pushed out of the page cache.

Knows nothing of agentmem. What a platform does not offer is None or False, never a guess.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import platform
import threading
from pathlib import Path
from types import TracebackType

import numpy as np

MIB = 1 << 20
_STATUS = Path("/proc/self/status")


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def anonymous_bytes() -> int | None:
    """Memory of this process that no file backs; None where the system does not say."""
    if not _STATUS.exists():
        return None
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return None


def release_freed() -> None:
    """Give what was freed back to the system, so that later growth shows; where the C library can."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class PeakMemory:
    """Watches anonymous memory in a thread while a block runs. ``peak`` is None where it cannot be read."""

    def __init__(self, every: float = 0.005) -> None:
        self.before = anonymous_bytes()
        self.peak = self.before
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def risen(self) -> float | None:
        """MiB that the peak lay above the value before the block."""
        if self.peak is None or self.before is None:
            return None
        return (self.peak - self.before) / MIB

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._stop.wait(self._every):
            self._sample()

    def _sample(self) -> None:
        now = anonymous_bytes()
        if now is not None and self.peak is not None:
            self.peak = max(self.peak, now)


def evict(folder: Path) -> bool:
    """Push all files below ``folder`` out of the page cache; False when some of them stayed."""
    if not hasattr(os, "posix_fadvise"):
        return False
    gone = True
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            gone = pages_in_memory(fd) == 0 and gone
        finally:
            os.close(fd)
    return gone


def pages_in_memory(fd: int) -> int | None:
    """How many pages of a file are in memory, asked of mincore, since reading to find out would load them; None: unknown."""
    size = os.fstat(fd).st_size
    if not size:
        return 0
    mincore = ctypes.CDLL(None, use_errno=True).mincore
    with mmap.mmap(fd, size, prot=mmap.PROT_READ) as mapped:
        view = np.frombuffer(mapped, dtype=np.uint8)
        present = np.zeros(-(-size // mmap.PAGESIZE), dtype=np.uint8)
        answer = mincore(
            ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(size), ctypes.c_void_p(present.ctypes.data)
        )
        del view
    return int((present & 1).sum()) if answer == 0 else None

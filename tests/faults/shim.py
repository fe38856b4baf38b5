"""Faults between this process and the kernel: a small C library, built here and preloaded.

Knows calls, errors and signals; nothing of agents. See ``shim.c`` for what it catches.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")


class Verb(IntFlag):
    """Kinds of calls; ``ALL``: those that change something."""

    WRITE = 1
    SYNC = 2
    NAME = 4
    SIZE = 8
    OPEN = 16
    ALL = 31
    READ = 32


class Kind(IntEnum):
    """What happens at the chosen call."""

    FAIL = 0
    SHORT = 1
    KILL_BEFORE = 2
    KILL_AFTER = 3
    KILL_TORN = 4


@dataclass(frozen=True)
class Fault:
    """What goes wrong at the ``nth`` call (from 1), and whether at each later one too."""

    kind: Kind
    nth: int
    error: int = 0
    forever: bool = False
    verbs: Verb = Verb.ALL

    @property
    def kills(self) -> bool:
        """Whether the process ends there."""
        return self.kind >= Kind.KILL_BEFORE

    def __str__(self) -> str:
        name = (
            errno.errorcode.get(self.error, "no error") if self.kind == Kind.FAIL else self.kind.name.lower()
        )
        often = " and all after" if self.forever else ""
        return f"{name} at call {self.nth}{often}"


NO_FAULT = Fault(Kind.FAIL, -1)


def missing() -> str | None:
    """Why there can be no shim here; None when there can."""
    if not sys.platform.startswith("linux"):
        return "the shim needs Linux"
    if _compiler() is None:
        return "there is no C compiler"
    return None


def preloaded_environment(folder: Path) -> dict[str, str]:
    """This environment with the shim built below ``folder`` and preloaded. Raises CalledProcessError."""
    library = folder / "shim.so"
    compiler = _compiler()
    assert compiler is not None
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-o", str(library), str(SOURCE)], check=True
    )
    return {**os.environ, "LD_PRELOAD": str(library)}


@cache
def library() -> ctypes.CDLL:
    """The preloaded shim. Raises AttributeError when this process was started without it."""
    found = ctypes.CDLL(None)
    found.faults_arm.argtypes = [ctypes.c_char_p, *[ctypes.c_int], ctypes.c_long, *[ctypes.c_int] * 3]
    found.faults_calls.restype = ctypes.c_long
    found.faults_last.restype = ctypes.c_char_p
    found.faults_clock.argtypes = [ctypes.c_long]
    found.faults_record.argtypes = [ctypes.c_char_p, ctypes.c_int]
    found.faults_mark.argtypes = [ctypes.c_uint64]
    return found


def arm(folder: Path, fault: Fault) -> None:
    """From now on count calls of the fault's kinds to files below ``folder``, and fail as asked."""
    library().faults_arm(
        os.fsencode(folder.resolve()), fault.verbs, fault.nth, fault.kind, fault.error, fault.forever
    )


def disarm() -> int:
    """No more faults; returns how many calls were counted."""
    library().faults_disarm()
    return int(library().faults_calls())


def last_call() -> str:
    """The name of the call that went wrong last."""
    return str(library().faults_last().decode())


def record(folder: Path, target: int) -> None:
    """Write every change below ``folder`` to the descriptor ``target``; -1 ends it."""
    library().faults_record(os.fsencode(folder.resolve()), target)


def mark(number: int) -> None:
    """Put a number into the record."""
    library().faults_mark(number)


def move_clock(seconds: int) -> None:
    """Set the wall clock of this process ahead, or back."""
    library().faults_clock(seconds)


def _compiler() -> str | None:
    named = (sysconfig.get_config_var("CC") or "").split(" ")[0]
    return shutil.which("cc") or shutil.which("gcc") or (shutil.which(named) if named else None)

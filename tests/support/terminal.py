"""A program on a pseudo-terminal, typed at and read like a person does."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from types import TracebackType

_SEQUENCES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[=>])")


class Terminal:
    """One running program. ``screen`` is everything it printed so far, without escape sequences."""

    def __init__(self, command: Sequence[str], *, patience: float = 60.0) -> None:
        self._patience = patience
        self._raw = b""
        self._master, slave = pty.openpty()
        env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
        self._process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env)
        os.close(slave)

    @property
    def screen(self) -> str:
        """What was printed."""
        return _SEQUENCES.sub("", self._raw.decode(errors="replace")).replace("\r\n", "\n")

    def write(self, text: str) -> None:
        """Type, without a newline of its own."""
        os.write(self._master, text.encode())

    def wait_for(self, text: str, *, after: int = 0) -> int:
        """Read until ``text`` was printed behind ``after``; returns the place behind it."""
        self._read_until(lambda: text in self.screen[after:], f"no {text!r}")
        return self.screen.index(text, after) + len(text)

    def wait_for_more(self, length: int) -> None:
        """Read until the screen holds ``length`` characters."""
        self._read_until(lambda: len(self.screen) >= length, f"fewer than {length} characters")

    def _read_until(self, done: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + self._patience
        while not done():
            alive = self._process.poll() is None
            more = self._read(0.2)
            assert more or alive, f"ended with {otherwise} in: {self.screen!r}"
            assert time.monotonic() < deadline, f"{otherwise} in: {self.screen!r}"

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def interrupt_until(self, text: str, *, after: int = 0) -> int:
        """Ctrl-C, again each second until ``text`` was printed behind ``after``; the place behind it.

        One that arrives just before a prompt begins to wait for keys is noticed at the next key only.
        """
        deadline = time.monotonic() + self._patience
        while text not in self.screen[after:]:
            assert time.monotonic() < deadline, f"no {text!r} in: {self.screen!r}"
            self.interrupt()
            again = time.monotonic() + 1.0
            while text not in self.screen[after:] and time.monotonic() < again:
                self._read(0.1)
        return self.screen.index(text, after) + len(text)

    def end(self) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + self._patience
        while self._process.poll() is None:
            assert time.monotonic() < deadline, f"still running: {self.screen!r}"
            self._read(0.1)
        while self._read(0.0):
            pass
        return self._process.returncode

    def _read(self, seconds: float) -> bool:
        ready = select.poll()  # unlike select() it takes a descriptor above 1,023
        ready.register(self._master, select.POLLIN)
        if not ready.poll(seconds * 1000):
            return False
        try:
            piece = os.read(self._master, 65536)
        except OSError:  # Linux: the other end was closed
            return False
        self._raw += piece
        return bool(piece)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._master)

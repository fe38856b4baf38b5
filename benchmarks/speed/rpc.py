"""A worker process that answers calls: one JSON line in, one out. Standard library alone, for any Python.

The worker's own printing goes to its standard error, so that libraries cannot break the lines.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Figures = dict[str, float]
"""What a measurement gives."""
_TAIL = 1_500
_ROOT = Path(__file__).resolve().parents[2]


def serve(handlers: Mapping[str, Callable[..., Any]]) -> None:
    """Answer calls from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        call = json.loads(line)
        try:
            answer = {"answer": handlers[call["name"]](**call["arguments"])}
        except Exception as error:  # noqa: BLE001  # told to the caller, who decides
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class WorkerError(RuntimeError):
    """A worker could not be started, ended, or answered with an error."""


class Worker:
    """A process that runs ``python -m module arguments`` and serves calls. Close it.

    Args:
        python: the interpreter.
        module: what to run; it calls :func:`serve`.
        arguments: of the command line.
    """

    def __init__(self, python: str | Path, module: str, arguments: Sequence[str] = ()) -> None:
        self._module = module
        self._errors = tempfile.TemporaryFile("w+b")  # noqa: SIM115  # closed with the worker
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), *_inherited()])}
        self._process = subprocess.Popen(
            [str(python), "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env=environment,
        )

    def call(self, name: str, **arguments: Any) -> Any:
        """A handler's answer. Raises WorkerError."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"name": name, "arguments": arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise WorkerError(f"{self._module} ended with {self._process.wait()} in {name}: {self._said()}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self._module}: {name}: {answer['error']}")
        return answer["answer"]

    def close(self) -> None:
        """End the process. Twice is fine."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def _said(self) -> str:
        """The end of what the worker printed."""
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - _TAIL))
        return self._errors.read().decode(errors="replace").strip() or "it said nothing"


def _inherited() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]

"""The worker processes of a run, one for each side, all children of this process; started when first asked.

Knows how each is started, and not what it measures.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from agentmem.engine.cache import ModelCache, default_cache
from agentmem.engine.catalog import CATALOG
from benchmarks.speed.plan import LLAMA, TRANSFORMERS, model_of
from benchmarks.speed.rpc import Figures, Worker, WorkerError

BUILD = "python -m benchmarks.speed.llama_build"


class Sides:
    """The workers for one model. Close it.

    Args:
        model: a model's name.
        folder: where our agents are kept.
        context: the longest context that llama.cpp is asked for, in tokens.
        llama_python: a Python that has llama_cpp; None: this one, else the one that ``BUILD`` made.
        gguf: llama.cpp's weights; None: the file that the model was converted from.
    """

    def __init__(
        self,
        model: str,
        folder: Path,
        *,
        context: int,
        llama_python: Path | None = None,
        gguf: Path | None = None,
    ) -> None:
        self._model = model
        self._folder = folder
        self._context = context
        self._llama_python = llama_python
        self._gguf = gguf
        self._workers: dict[str, Worker] = {}

    def __enter__(self) -> Sides:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers.values():
            worker.close()
        self._workers = {}

    def info(self, side: str) -> dict[str, Any]:
        """What a side says of itself."""
        found: dict[str, Any] = self._call(side, "info")
        return found

    def prepare(self, side: str, lengths: Sequence[int]) -> None:
        """Make our histories."""
        self._call(side, "prepare", lengths=list(lengths))

    def measure(self, side: str, what: str, length: int, arguments: dict[str, int]) -> Figures:
        """One cell's figures. Raises WorkerError."""
        if what == "memory":
            return self._memory(side, length)
        found: Figures = self._call(side, what, length=length, **arguments)
        return found

    def _call(self, side: str, name: str, **arguments: Any) -> Any:
        if side not in self._workers:
            self._workers[side] = self._start(side)
        try:
            return self._workers[side].call(name, **arguments)
        except WorkerError:
            with suppress(OSError):  # the next cell gets a fresh one: this one may be in any state
                self._workers.pop(side).close()
            raise

    def _start(self, side: str) -> Worker:
        if side == TRANSFORMERS:
            return Worker(sys.executable, "benchmarks.speed.transformers_worker", [self._model])
        if side == LLAMA:
            python = llama_python(self._llama_python)
            gguf = self._gguf if self._gguf is not None else gguf_of(self._model)
            arguments = [str(gguf), str(self._context), str(torch.get_num_threads())]
            return Worker(python, "benchmarks.speed.llama_worker", arguments)
        arguments = [model_of(side, self._model), str(self._home(side))]
        return Worker(sys.executable, "benchmarks.speed.ours_worker", arguments)

    def _home(self, side: str) -> Path:
        """Where a side's agents are: other weights are another model to them."""
        return self._folder / side.replace(" ", "-")

    def _memory(self, side: str, length: int) -> Figures:
        """Peak anonymous memory above the weights, in a process of its own: an allocator keeps what it had."""
        arguments = [model_of(side, self._model), str(self._home(side)), f"at-{length}", "66", "1024"]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory_probe", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise WorkerError(f"the memory probe ended with {done.returncode}: {done.stderr[-500:]}")
        risen = json.loads(done.stdout.splitlines()[-1])
        if risen["ingest"] is None:
            raise WorkerError("this system does not say how much memory is anonymous")
        return {"turn_mib": risen["turn"], "ingest_mib": risen["ingest"]}


def built_python(cache: ModelCache) -> Path:
    """Where ``BUILD`` puts a Python with llama_cpp."""
    return cache.root / "llama-cpp" / "bin" / "python"


def llama_python(asked: Path | None) -> Path:
    """A Python that has llama_cpp. Raises WorkerError with the remedy."""
    if asked is not None:
        return asked
    if find_spec("llama_cpp") is not None:
        return Path(sys.executable)
    built = built_python(default_cache())
    if not built.exists():
        raise WorkerError(
            f"llama.cpp is not here. Build it once (ten minutes, a C++ compiler): {BUILD}. "
            "Or name a Python that has llama_cpp with --llama-python, or leave out --peer llamacpp."
        )
    return built


def gguf_of(model: str) -> Path:
    """The GGUF that a model of ours was converted from. Raises WorkerError."""
    path = Path(model).expanduser()
    if path.suffix.lower() == ".gguf" and path.is_file():
        return path
    if model in CATALOG:
        file = default_cache().part("files") / CATALOG[model].file_name
        if file.is_file():
            return file
        raise WorkerError(f"{file.name} is not in the cache: agentmem models pull {model}")
    raise WorkerError(f"there is no GGUF of {model}: name one with --gguf FILE")

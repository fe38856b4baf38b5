"""llama.cpp in a process of its own, under whatever Python has ``llama_cpp``; needs nothing else of this project.

    python -m benchmarks.speed.llama_worker MODEL.gguf CONTEXT THREADS

A long context is not read: a short one is, and is doubled through llama.cpp's own state functions (its cells
copied, and moved behind the first ones). Speed does not depend on what the cells hold.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import llama_cpp as cpp  # type: ignore[import-not-found]  # built apart
import numpy as np

from benchmarks.speed.rpc import Figures, serve

CHUNK = 512
_REAL = 1_024
"""So much of a context is really read."""
_SPARE = 2_048
"""Cells beyond the longest context, for what is decoded and read there."""
_WIDE = ("F16", "BF16", "F32")


class LlamaSide:
    """One model and one context of llama.cpp.

    Args:
        path: a GGUF. Full-precision weights are quantised to Q4_K_M first, into the system's temporary folder.
        context: the longest context, in tokens.
        threads: for decoding and for reading.
    """

    def __init__(self, path: Path, context: int, threads: int) -> None:
        cpp.llama_backend_init()
        self._silence = cpp.llama_log_callback(lambda _level, _text, _data: None)
        cpp.llama_log_set(self._silence, None)
        self._path = path
        self._model = _load(path)
        if _kind(self._model).split()[-1] in _WIDE or any(f" {kind}" in _kind(self._model) for kind in _WIDE):
            cpp.llama_model_free(self._model)
            self._path = _quantised(path)
            self._model = _load(self._path)
        options = cpp.llama_context_default_params()
        options.n_ctx = context + _SPARE
        options.n_batch = options.n_ubatch = CHUNK
        options.n_threads = options.n_threads_batch = threads
        options.n_seq_max, options.kv_unified = 2, True
        self._context = cpp.llama_init_from_model(self._model, options)
        if not self._context:
            raise MemoryError(f"llama.cpp cannot make a context of {context} tokens for {path}")
        self._memory = cpp.llama_get_memory(self._context)
        self._vocabulary = cpp.llama_vocab_n_tokens(cpp.llama_model_get_vocab(self._model))
        self._held = 0
        self._state_file = Path(tempfile.gettempdir()) / f"agentmem-bench-{os.getpid()}.state"

    def info(self) -> dict[str, str]:
        """What runs here."""
        features = cpp.llama_print_system_info().decode()
        return {"version": cpp.__version__, "weights": _kind(self._model), "features": features}

    def chunk(self, length: int, tokens: int) -> Figures:
        """Read so many tokens behind ``length`` ones."""
        self._fill(length)
        started = time.perf_counter()
        self._read(self._ids(tokens), length)
        seconds = time.perf_counter() - started
        self._cut(length)
        return {"seconds": seconds, "tokens": tokens}

    def whole(self, length: int) -> Figures:
        """Read so many tokens from nothing."""
        self._clear()
        started = time.perf_counter()
        self._read(self._ids(length), 0)
        seconds = time.perf_counter() - started
        self._held = length
        return {"seconds": seconds, "tokens": length}

    def decode(self, length: int, tokens: int) -> Figures:
        """Decode greedily behind ``length`` tokens; the first one is not timed."""
        self._fill(length)
        token, steps = 5, []
        for number in range(tokens):
            started = time.perf_counter()
            self._forward([token], length + number)
            logits = np.ctypeslib.as_array(cpp.llama_get_logits(self._context), shape=(self._vocabulary,))
            token = int(logits.argmax())
            steps.append(time.perf_counter() - started)
        self._cut(length)
        later = steps[1:]
        return {"tokens_per_s": len(later) / sum(later), "step_ms": 1000 * float(np.median(later))}

    def state(self, length: int) -> Figures:
        """Save the context's state to a file and load it, from a warm and from a cold page cache."""
        self._fill(length)
        name = str(self._state_file).encode()
        ids = (cpp.llama_token * length)(*[5] * length)
        try:
            started = time.perf_counter()
            size = cpp.llama_state_save_file(self._context, name, ids, length)
            saved = time.perf_counter() - started
            if not size:
                raise OSError(f"llama.cpp could not save its state to {self._state_file}")
            bytes_saved = self._state_file.stat().st_size
            warm = self._load_state(length)
            cold = self._load_state(length) if _evict(self._state_file) else None
        finally:
            self._state_file.unlink(missing_ok=True)
        found = {"save_ms": 1000 * saved, "load_ms": 1000 * warm, "bytes": float(bytes_saved)}
        return found if cold is None else {**found, "cold_load_ms": 1000 * cold}

    def _load_state(self, length: int) -> float:
        self._clear()
        room, count = (cpp.llama_token * length)(), ctypes.c_size_t()
        started = time.perf_counter()
        done = cpp.llama_state_load_file(
            self._context, str(self._state_file).encode(), room, length, ctypes.byref(count)
        )
        seconds = time.perf_counter() - started
        if not done:
            raise OSError(f"llama.cpp could not load its state from {self._state_file}")
        self._held = length
        return seconds

    # -- cells ----------------------------------------------------------------------------------------

    def _fill(self, length: int) -> None:
        """Make the context hold exactly so many tokens."""
        if self._held > length:
            self._cut(length)
        if self._held < min(length, _REAL):
            new = min(length, _REAL) - self._held
            self._read(self._ids(new), self._held)
            self._held += new
        while self._held < length:
            self._double(min(self._held, length - self._held))
        if length:  # the moved cells are rotated with the next token, whose time is not asked for
            self._forward([5], length)
            self._cut(length)

    def _double(self, tokens: int) -> None:
        """Copy the first ``tokens`` cells behind the last one."""
        memory, held = self._memory, self._held
        self._cut_to_copy(tokens)
        cpp.llama_memory_seq_add(memory, 1, 0, -1, held)
        cpp.llama_memory_seq_cp(memory, 1, 0, -1, -1)
        cpp.llama_memory_seq_rm(memory, 1, -1, -1)
        self._held = held + tokens

    def _cut_to_copy(self, tokens: int) -> None:
        """Make sequence 1 a copy of the first ``tokens`` cells of sequence 0, in cells of its own."""
        size = cpp.llama_state_seq_get_size(self._context, 0)
        room = (ctypes.c_uint8 * size)()
        cpp.llama_state_seq_get_data(self._context, room, size, 0)
        if not cpp.llama_state_seq_set_data(self._context, room, size, 1):
            raise MemoryError("llama.cpp has no room for a longer context")
        cpp.llama_memory_seq_rm(self._memory, 1, tokens, -1)

    def _clear(self) -> None:
        cpp.llama_memory_clear(self._memory, False)
        self._held = 0

    def _cut(self, length: int) -> None:
        """Drop the tokens from ``length`` on."""
        cpp.llama_memory_seq_rm(self._memory, 0, length, -1)
        self._held = min(self._held, length)

    def _ids(self, tokens: int) -> list[int]:
        return [100 + index % 1_000 for index in range(tokens)]

    def _read(self, ids: Sequence[int], at: int) -> None:
        for start in range(0, len(ids), CHUNK):
            self._forward(ids[start : start + CHUNK], at + start)

    def _forward(self, ids: Sequence[int], at: int) -> None:
        batch = cpp.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for index, token in enumerate(ids):
            batch.token[index], batch.pos[index] = token, at + index
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
            batch.logits[index] = index == len(ids) - 1
        code = cpp.llama_decode(self._context, batch)
        cpp.llama_synchronize(self._context)
        cpp.llama_batch_free(batch)
        if code:
            raise MemoryError(f"llama.cpp answered {code} to {len(ids)} tokens at {at}")


def _load(path: Path) -> object:
    model = cpp.llama_model_load_from_file(str(path).encode(), cpp.llama_model_default_params())
    if not model:
        raise OSError(f"llama.cpp cannot load {path}")
    return model


def _kind(model: object) -> str:
    room = ctypes.create_string_buffer(256)
    cpp.llama_model_desc(model, room, 256)
    return room.value.decode()


def _quantised(path: Path) -> Path:
    """The same weights in Q4_K_M."""
    target = Path(tempfile.gettempdir()) / f"{path.stem}.agentmem-bench-q4_k_m.gguf"
    if not target.exists():
        options = cpp.llama_model_quantize_default_params()
        options.ftype = cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M
        part = target.with_suffix(f".{os.getpid()}")
        if cpp.llama_model_quantize(str(path).encode(), str(part).encode(), ctypes.byref(options)):
            raise OSError(f"llama.cpp cannot quantise {path}")
        part.replace(target)
    return target


def _evict(path: Path) -> bool:
    """Push a file out of the page cache, where the system can."""
    if not hasattr(os, "posix_fadvise"):
        return False
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
    return True


def main() -> None:
    """Serve the model that the command line names."""
    path, context, threads = sys.argv[1:]
    side = LlamaSide(Path(path), int(context), int(threads))
    handlers = (side.info, side.chunk, side.whole, side.decode, side.state)
    serve({handler.__name__: handler for handler in handlers})


if __name__ == "__main__":
    main()

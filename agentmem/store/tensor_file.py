"""A file of fixed capacity that is valid safetensors from birth and is filled in place.

The header never changes and the file never grows: it is made sparse at its full size, written with
pwrite, and read through a read-only shared map, or with pread: where a file may have holes, a map is no
way to read it, since a tmpfs without a free page answers with SIGBUS. Which rows mean something, and which
were ever written, is known to the index alone. Knows shapes, offsets and bytes; nothing of turns, pages,
checksums or SQLite.

Format: https://huggingface.co/docs/safetensors (8-byte little-endian header length, JSON header, data).
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agentmem.errors import ConfigError, DamagedError
from agentmem.store.failures import is_lost, unreadable
from agentmem.store.files import opened, punch, read_all, released_with, write_all

RawArray = NDArray[Any]
"""An integer array of an element's width: the bytes of a tensor, whatever its type."""

_ALIGNMENT = 4096  # rows start on a page of the operating system
_COPY_BYTES = 1 << 20
_DO_NOT_WAIT: int | None = getattr(os, "RWF_NOWAIT", None)  # Linux
_DTYPE_NAMES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32", torch.int8: "I8"}
_RAW_DTYPES = {1: (torch.int8, np.int8), 2: (torch.int16, np.int16), 4: (torch.int32, np.int32)}


def raw_array(tensor: Tensor) -> RawArray:
    """The elements of a CPU tensor as integers of the same width, sharing its memory."""
    return tensor.detach().view(_RAW_DTYPES[tensor.dtype.itemsize][0]).numpy()


@dataclass(frozen=True)
class TensorFileSpec:
    """What a file holds: per tensor a name and (Hkv, D); all of them (Hkv, capacity, D) of ``dtype``."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, int], ...]
    capacity: int
    dtype: torch.dtype

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPE_NAMES:
            known = ", ".join(str(dtype) for dtype in _DTYPE_NAMES)
            raise ConfigError(f"K/V of {self.dtype} cannot be stored; use one of {known}")

    @cached_property
    def header(self) -> bytes:
        """The bytes before the data, padded so that the data starts on a page."""
        table: dict[str, Any] = {"__metadata__": {"format": "agentmem"}}
        start = 0
        for name, (heads, dim) in zip(self.names, self.shapes, strict=True):
            stop = start + heads * self.capacity * dim * self.dtype.itemsize
            shape = [heads, self.capacity, dim]
            table[name] = {
                "dtype": _DTYPE_NAMES[self.dtype],
                "shape": shape,
                "data_offsets": [start, stop],
            }
            start = stop
        text = json.dumps(table, separators=(",", ":")).encode()
        text += b" " * (-(len(text) + 8) % _ALIGNMENT)
        return struct.pack("<Q", len(text)) + text

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each tensor starts in the file."""
        offsets = [len(self.header)]
        for heads, dim in self.shapes:
            offsets.append(offsets[-1] + heads * self.capacity * dim * self.dtype.itemsize)
        return tuple(offsets[:-1])

    @cached_property
    def size(self) -> int:
        """Length of the file in bytes."""
        row = sum(heads * dim for heads, dim in self.shapes) * self.dtype.itemsize
        return len(self.header) + row * self.capacity

    def offset(self, tensor: int, head: int, slot: int) -> int:
        """Where one row starts in the file."""
        dim = self.shapes[tensor][1]
        return self.offsets[tensor] + (head * self.capacity + slot) * dim * self.dtype.itemsize


def create_tensor_file(path: Path, spec: TensorFileSpec) -> None:
    """Make an empty file of full size. Raises OSError, FileExistsError among them."""
    with opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) as fd:
        write_all(fd, spec.header, 0)
        os.ftruncate(fd, spec.size)


def flaw_of(path: Path, spec: TensorFileSpec) -> tuple[str, str] | None:
    """(where, what) is wrong with a file's size or header; None when both are as they were made.

    Raises:
        OSError: it cannot be opened for a reason that says nothing of the file.
    """
    try:
        with opened(path, os.O_RDONLY) as fd:
            return flaw_in(fd, spec)
    except OSError as error:
        if not is_lost(error):
            raise
        return "the whole file", f"it cannot be opened ({error.strerror})"


def flaw_in(fd: int, spec: TensorFileSpec) -> tuple[str, str] | None:
    """The same of a file that is open. Raises OSError."""
    size = os.fstat(fd).st_size
    header = read_all(fd, len(spec.header), 0)
    if size != spec.size:
        return f"bytes {min(size, spec.size)} on", f"it is {size} bytes long, not {spec.size}"
    if header != spec.header:
        return f"bytes 0 to {len(spec.header)}", "the header is not the one it was made with"
    return None


class TensorFile:
    """A file opened for reading: checked, then mapped. Rows are views of the map, or read from the file.

    Raises:
        DamagedError: it is missing, of another size, its header was changed, or the medium has lost it.
        StoreError: the system would not open or map it.
    """

    def __init__(self, path: Path, spec: TensorFileSpec, agent_id: str) -> None:
        self.path = path
        self.spec = spec
        self.agent_id = agent_id
        self._fd = -1
        try:
            flaw = flaw_of(path, spec)
            if flaw is not None:
                raise self.damaged(*flaw)
            self._fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            self._release = released_with(self, self._fd)
            self._map = self._mapped()
        except OSError as error:
            self._close_file()
            raise unreadable(agent_id, self.label, "the whole file", "opened", error) from error
        self._view = memoryview(self._map)
        self._rows = [self._row_array(tensor) for tensor in range(len(spec.names))]

    @property
    def label(self) -> str:
        """The file's name within the agent's folder."""
        return f"{self.path.parent.name}/{self.path.name}"

    def damaged(self, where: str, detail: str) -> DamagedError:
        """An error that names agent, file and range."""
        return DamagedError(self.agent_id, self.label, where, detail)

    def check_size(self) -> None:
        """Raise DamagedError if the file was truncated since it was mapped (touching it would SIGBUS).

        Asked before every copy and every hash. Reading with pread would need no asking, but takes four to ten
        times as long (3 x 1,024 rows in runs of 32: 112 us, not 10). What remains is somebody else cutting the file
        off in the microseconds between this and the copy: nothing of ours ever shortens a file that is in use.
        """
        size = os.fstat(self._fd).st_size
        if size != self.spec.size:
            raise self.damaged(
                f"bytes {min(size, self.spec.size)} on", f"it is {size} bytes long, not {self.spec.size}"
            )

    def rows(self, tensor: int) -> RawArray:
        """All rows of a tensor as integers: (Hkv * capacity, D), read-only."""
        return self._rows[tensor]

    def tensor(self, tensor: int) -> Tensor:
        """A tensor (Hkv, capacity, D) over the map. Writing to it would end the process."""
        heads, dim = self.spec.shapes[tensor]
        with warnings.catch_warnings():
            # torch warns of read-only memory; that it cannot be written is what we want
            warnings.filterwarnings("ignore", message=".*not writable")
            rows = torch.from_numpy(self._rows[tensor])
        return rows.view(heads, self.spec.capacity, dim).view(self.spec.dtype)

    def bytes_of(self, tensor: int, head: int, start: int, stop: int) -> memoryview:
        """The bytes of rows [start, stop) of one head, not copied."""
        offset = self.spec.offset(tensor, head, start)
        return self._view[offset : offset + (stop - start) * self.row_bytes(tensor)]

    def stored_bytes(self, tensor: int, head: int, start: int, stop: int) -> bytes:
        """The bytes of rows [start, stop) of one head, read from the file. Raises DamagedError."""
        return self.read(self.spec.offset(tensor, head, start), (stop - start) * self.row_bytes(tensor))

    def read_rows(self, tensor: int, row: int, out: RawArray) -> None:
        """Read rows (head * capacity + slot) from ``row`` on into ``out`` (T, D). Raises DamagedError."""
        offset = self.spec.offset(tensor, 0, row)
        if out.flags.c_contiguous:
            self.read_into(offset, [out.data.cast("B")])
        else:
            out[...] = np.frombuffer(self.read(offset, out.nbytes), dtype=out.dtype).reshape(out.shape)

    def read(self, offset: int, count: int) -> bytes:
        """Bytes of the file, holes as zeros. Raises DamagedError when it ends before, or the disk fails."""
        try:
            data = os.pread(self._fd, count, offset)
            if len(data) < count:  # one call reads it all, unless something is wrong
                data += read_all(self._fd, count - len(data), offset + len(data))
        except OSError as error:
            where = f"bytes {offset} to {offset + count}"
            raise unreadable(self.agent_id, self.label, where, "read", error) from error
        if len(data) < count:
            self.check_size()
            raise self.damaged(f"bytes {offset + len(data)} to {offset + count}", "they cannot be read")
        return data

    def read_into(self, offset: int, parts: Sequence[memoryview]) -> None:
        """Fill ``parts``, 1,024 at most, with what lies in a row from ``offset`` on. Raises DamagedError."""
        size = sum(map(len, parts))
        with suppress(OSError):
            if os.preadv(self._fd, parts, offset) == size:
                return
        data, at = self.read(offset, size), 0  # says what is wrong
        for part in parts:
            part[:] = data[at : at + len(part)]
            at += len(part)

    def expect_anything(self) -> None:
        """Rows are read from all over: a look at one shall not fetch the megabytes around it.

        Only where ``is_cold`` tells what is worth a ``fetch``: fetching page by page takes long.
        """
        with suppress(OSError):
            self._is_cold(0)
            self._map.madvise(mmap.MADV_RANDOM)

    def is_cold(self, offset: int) -> bool:
        """Whether a byte would have to be fetched from the medium; False where the system does not tell."""
        with suppress(OSError):  # one of the medium is for the read itself to meet
            return self._is_cold(offset)
        return False

    def fetch(self, offset: int, size: int) -> None:
        """Ask the system to fetch bytes from the medium while we do something else."""
        with suppress(OSError):
            os.posix_fadvise(self._fd, offset, size, os.POSIX_FADV_WILLNEED)

    def tensor_bytes(self, tensor: int) -> memoryview:
        """The bytes of a whole tensor, heads in order, not copied."""
        return self.bytes_of(tensor, 0, 0, self.spec.shapes[tensor][0] * self.spec.capacity)

    def row_bytes(self, tensor: int) -> int:
        """Bytes of one row."""
        return self.spec.shapes[tensor][1] * self.spec.dtype.itemsize

    def close(self) -> None:
        """Drop the map; where somebody still holds a view of it, it goes with the last view."""
        self._rows = []
        self._view.release()
        with suppress(BufferError):
            self._map.close()
        self._close_file()

    def _is_cold(self, offset: int) -> bool:
        """The same. Raises OSError where the system does not tell."""
        if _DO_NOT_WAIT is None:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        try:
            os.preadv(self._fd, [bytearray(1)], offset, _DO_NOT_WAIT)
        except BlockingIOError:
            return True
        return False

    def _mapped(self) -> mmap.mmap:
        """The memory that rows are views of. Raises OSError."""
        # without PROT_WRITE: no stray store reaches a file
        return mmap.mmap(self._fd, self.spec.size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)

    def _close_file(self) -> None:
        if self._fd >= 0:
            self._release()
            self._fd = -1

    def _row_array(self, tensor: int) -> RawArray:
        heads, dim = self.spec.shapes[tensor]
        raw = _RAW_DTYPES[self.spec.dtype.itemsize][1]
        count = heads * self.spec.capacity * dim
        array = np.frombuffer(self._map, dtype=raw, count=count, offset=self.spec.offsets[tensor])
        return array.reshape(heads * self.spec.capacity, dim)


class TensorWriter:
    """A file opened for writing rows in place. Only it may alter the file while it is open.

    Raises:
        DamagedError: the file is missing, of another size, or its header was changed.
        StoreError: the system would not open it.
    """

    def __init__(self, path: Path, spec: TensorFileSpec, agent_id: str) -> None:
        self.path = path
        self.spec = spec
        label = f"{path.parent.name}/{path.name}"
        try:
            flaw = flaw_of(path, spec)
            if flaw is not None:  # writing past the end of a truncated file would hide the damage
                raise DamagedError(agent_id, label, *flaw)
            self.fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            self._release = released_with(self, self.fd)
        except OSError as error:
            raise unreadable(agent_id, label, "the whole file", "opened", error) from error

    def write(self, tensor: int, slot: int, rows: RawArray) -> None:
        """Write ``rows`` (Hkv, T, D) at slots [slot, slot + T). Raises OSError."""
        for head in range(rows.shape[0]):
            data = np.ascontiguousarray(rows[head])
            write_all(self.fd, data.data, self.spec.offset(tensor, head, slot))

    def write_zeros(self, slots: Sequence[tuple[int, int]]) -> None:
        """Overwrite slot ranges [start, stop) of every tensor with zeros. Raises OSError."""
        for tensor, (heads, dim) in enumerate(self.spec.shapes):
            row = dim * self.spec.dtype.itemsize
            for head in range(heads):
                for start, stop in slots:
                    write_all(self.fd, bytes((stop - start) * row), self.spec.offset(tensor, head, start))

    def free(self, slots: Sequence[tuple[int, int]]) -> None:
        """Give slot ranges [start, stop) of every tensor back to the file system; they read as zeros. Raises OSError.

        Where it takes nothing back, they are overwritten with zeros unless they are zeros already.
        """
        for tensor, (heads, dim) in enumerate(self.spec.shapes):
            row = dim * self.spec.dtype.itemsize
            for head in range(heads):
                for start, stop in slots:
                    offset, size = self.spec.offset(tensor, head, start), (stop - start) * row
                    if not punch(self.fd, offset, size) and any(read_all(self.fd, size, offset)):
                        write_all(self.fd, bytes(size), offset)

    def close(self) -> None:
        """Close the descriptor; closing twice is fine."""
        if self.fd >= 0:
            self._release()
            self.fd = -1


def copy_used(source: TensorFile, target: Path, used: int, live: Iterable[tuple[int, int]]) -> None:
    """Make ``target`` a file with the first ``used`` slots of ``source``; zeros that are not ``live`` stay holes.

    Not synced. Raises OSError, DamagedError when the source was truncated.
    """
    source.check_size()
    spec = source.spec
    create_tensor_file(target, spec)
    pieces = list(_pieces(used, live))
    with opened(target, os.O_RDWR) as fd:
        for tensor, (heads, _) in enumerate(spec.shapes):
            row = source.row_bytes(tensor)
            for head in range(heads):
                for first, last, lives in pieces:
                    step = max(1, (_COPY_BYTES if lives else _ALIGNMENT) // row)  # a hole is a page, at least
                    for start, stop in _steps(first, last, step):
                        data = source.stored_bytes(tensor, head, start, stop)
                        if lives or any(data):
                            write_all(fd, data, spec.offset(tensor, head, start))


def _pieces(used: int, live: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, bool]]:
    """(start, stop, whether it is live) of all slots below ``used``; ``live`` is sorted and disjoint."""
    done = 0
    for start, stop in live:
        if done < start < used:
            yield done, start, False
        if start < used:
            yield start, min(stop, used), True
        done = min(stop, used)
    if done < used:
        yield done, used, False


def _steps(start: int, stop: int, step: int) -> Iterator[tuple[int, int]]:
    """[start, stop) cut at each multiple of ``step``."""
    while start < stop:
        end = min(start - start % step + step, stop)
        yield start, end
        start = end

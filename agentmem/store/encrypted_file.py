"""One file, encrypted from end to end: written as a stream, read from anywhere. For exports.

A random key of its own, wrapped by the user's, then chunks of 64 KiB, each an AES-GCM message bound to the file,
its number and whether it is the last one (the STREAM construction, Hoang et al., CRYPTO 2015), so chunks cannot
be moved, left out or cut off. Knows bytes.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import struct
import uuid
from pathlib import Path

from agentmem.errors import ArchiveError, KeyNeededError, WrongKeyError
from agentmem.store.cipher import NONCE_BYTES, TAG_BYTES
from agentmem.store.files import read_all, write_all
from agentmem.store.keys import DataKey, MemoryKey, unwrapped

_MAGIC = b"AgMmFile\x01"
_CHUNK = 1 << 16
_LONGEST_HEADER = 4096


def is_encrypted_file(path: Path) -> bool:
    """Whether a file was written by :class:`EncryptedFileWriter`. Raises OSError."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


class EncryptedFileWriter(io.RawIOBase):
    """A new file on a descriptor, written from start to end; whole once it is closed."""

    def __init__(self, fd: int, key: MemoryKey) -> None:
        super().__init__()
        name = uuid.uuid4().hex
        data_key = DataKey.new(name)
        header = data_key.wrapped(key, name)
        self._fd = fd
        self._cipher = data_key.cipher("file")
        self._prefix = secrets.token_bytes(NONCE_BYTES - 4)
        self._number = 0
        self._waiting = bytearray()
        self._at = 0
        self._put(_MAGIC + struct.pack("<I", len(header)) + header + self._prefix)

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, data: object) -> int:
        """Take bytes; they are in the file when it is closed. Raises OSError."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        self._waiting += view
        while len(self._waiting) > _CHUNK:
            self._chunk(bytes(self._waiting[:_CHUNK]), last=False)
            del self._waiting[:_CHUNK]
        return len(view)

    def close(self) -> None:
        """Write the last chunk. The descriptor stays open. Raises OSError."""
        if not self.closed:
            self._chunk(bytes(self._waiting), last=True)
        super().close()

    def _chunk(self, data: bytes, *, last: bool) -> None:
        nonce = self._prefix + struct.pack("<I", self._number)
        self._put(self._cipher.encrypt(nonce, data, b"last" if last else b"more"))
        self._number += 1

    def _put(self, data: bytes) -> None:
        write_all(self._fd, data, self._at)
        self._at += len(data)


class EncryptedFileReader(io.RawIOBase):
    """Such a file, opened to be read from anywhere.

    Raises:
        KeyNeededError, WrongKeyError: no key, or another one.
        ArchiveError: it is not what was written; also while reading.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path, key: MemoryKey | None) -> None:
        super().__init__()
        if key is None:
            raise KeyNeededError(f"{path} is encrypted; give the key it was exported with")
        self._path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            head = read_all(self._file, len(_MAGIC) + 4 + _LONGEST_HEADER, 0)
            header, start = self._header(head)
            data_key = unwrapped(header, str(header["domain"]), key)
            if data_key is None:
                raise WrongKeyError(f"{path} is not opened by this key; give the one it was exported with")
            self._cipher = data_key.cipher("file")
            self._prefix = head[start : start + NONCE_BYTES - 4]
            self._start = start + NONCE_BYTES - 4
            body = os.fstat(self._file).st_size - self._start
            self._chunks = max(1, -(-body // (_CHUNK + TAG_BYTES)))
            self._size = max(0, body - self._chunks * TAG_BYTES)
            self._held: tuple[int, bytes] = (-1, b"")
            self._place = 0
            self._decrypted(self._chunks - 1)  # cut off or grown: said at once
        except BaseException:
            os.close(self._file)
            raise

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to a place in the plain bytes."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def tell(self) -> int:
        """The place in the plain bytes."""
        return self._place

    def readinto(self, buffer: object) -> int:
        """Read up to a chunk's end. Raises ArchiveError."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        if self._place >= self._size or not len(view):
            return 0
        number, within = divmod(self._place, _CHUNK)
        part = self._decrypted(number)[within : within + len(view)]
        view[: len(part)] = part
        self._place += len(part)
        return len(part)

    def close(self) -> None:
        """Let the file go; closing twice is fine."""
        if not self.closed:
            os.close(self._file)
        super().close()

    def _header(self, head: bytes) -> tuple[dict[str, object], int]:
        at = len(_MAGIC) + 4
        size = int.from_bytes(head[len(_MAGIC) : at], "little")
        try:
            header = json.loads(head[at : at + size])
            if head.startswith(_MAGIC) and {"domain", "kind", "nonce", "wrapped"} <= set(header):
                return header, at + size
        except ValueError:
            pass
        raise ArchiveError(f"{self._path} is not a whole encrypted export; export it again")

    def _decrypted(self, number: int) -> bytes:
        if self._held[0] != number:
            size = _CHUNK + TAG_BYTES
            data = read_all(self._file, size, self._start + number * size)
            bound = b"last" if number == self._chunks - 1 else b"more"
            nonce = self._prefix + struct.pack("<I", number)
            plain = self._cipher.decrypt(nonce, data, bound) if len(data) >= TAG_BYTES else None
            if plain is None:
                raise ArchiveError(f"{self._path} was changed or cut off at chunk {number}; export it again")
            self._held = (number, plain)
        return self._held[1]

"""The file of an export, as it is read: names, sizes and types are checked before anything is used.

One zip: a manifest, the turns as JSON lines and, if wanted, keys and values in pieces. It holds no
pickle, nothing is unpacked to disk, and no member is read beyond the size it may have. Knows no store.
"""

from __future__ import annotations

import base64
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from agentmem.config import MemoryConfig
from agentmem.errors import ArchiveError, ShapeError
from agentmem.memory.source import KVLayout
from agentmem.store.encrypted_file import EncryptedFileReader, EncryptedFileWriter, is_encrypted_file
from agentmem.store.keys import MemoryKey

FORMAT = 1
MANIFEST, TURNS = "manifest.json", "turns.jsonl"
PIECE_TOKENS = 2048
LARGEST_TEXT = 1 << 31
"""An index of more bytes than this is not unpacked."""
_CHANNELS = "int8_key_channels"
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError),  # the zip
    *(ValueError, KeyError, TypeError, AttributeError, SafetensorError),  # what it holds, JSON included
)
_MANIFEST_TYPES: Mapping[str, type] = {
    "agent_id": str,
    "model": str,
    "fingerprint": dict,
    "facts": dict,
    "config": dict,
    "layout": dict,
    "turns": int,
    "tokens": int,
    "kv": bool,
}
_ROW_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "state_id": str,
    "kind": str,
    "messages": list,
    "token_ids": list,
    "pending": (dict, type(None)),
    "created_at": str,
    "source": (str, type(None)),
    "part": (int, type(None)),
    "settings": dict,
    "receipt": dict,
    "forgotten": bool,
}


class ArchiveReader:
    """An export, opened. ``manifest``, ``rows`` (one per turn) and ``config`` are checked.

    Raises:
        ArchiveError: the file cannot be read, or is not a whole export.
    """

    def __init__(self, path: Path, key: MemoryKey | None = None) -> None:
        self._path = path
        self._start = -1
        self._piece: dict[str, Tensor] = {}
        with _reading(path):
            encrypted = is_encrypted_file(path)
            self._file: IO[bytes] = _decrypted(path, key) if encrypted else path.open("rb")
            self._archive = _zip(self._file)
        try:
            with _reading(path):
                self.manifest = _checked(json.loads(self._member(MANIFEST, 1 << 24)), _MANIFEST_TYPES)
                self.rows = [_checked_row(line) for line in self._member(TURNS, LARGEST_TEXT).splitlines()]
                _check_origins(self.manifest.get("quarantine"), self.rows)
                self.config = MemoryConfig(**self.manifest["config"])
                self.dtype = _checked_dtype(self.manifest["layout"]["dtype"])
                self._key_channels = _checked_channels(self.manifest["layout"].get(_CHANNELS))
                self.tokens = sum(len(row["token_ids"]) for row in self.rows)
                self._check_whole()
        except BaseException:
            self.close()
            raise

    @property
    def kv_dtype(self) -> str:
        """How its keys and values are kept, as options have it."""
        return "model" if self._key_channels is None else "int8"

    def layout(self, model: KVLayout) -> KVLayout:
        """What its keys and values are kept in, if they were made by a model of that layout. Raises ArchiveError."""
        if self._key_channels is None:
            return model
        try:
            return model.in_int8(self._key_channels)
        except ShapeError as error:
            raise ArchiveError(f"{self._path} is of another model: {error}; export it again") from error

    def kv(self, layout: KVLayout, start: int, stop: int) -> tuple[list[Tensor], list[Tensor]]:
        """Keys and values (Hkv, stop - start, D) per layer, one piece in memory at a time."""
        keys_raw: list[list[Tensor]] = [[] for _ in layout.layers]
        values: list[list[Tensor]] = [[] for _ in layout.layers]
        while start < stop:
            self._turn_to(start - start % PIECE_TOKENS, layout)
            low = start - self._start
            high = min(stop - self._start, PIECE_TOKENS)
            for layer in range(len(layout.layers)):
                keys_raw[layer].append(self._piece[f"layers.{layer}.keys"][:, low:high])
                values[layer].append(self._piece[f"layers.{layer}.values"][:, low:high])
            start = self._start + high
        return [torch.cat(part, 1) for part in keys_raw], [torch.cat(part, 1) for part in values]

    def close(self) -> None:
        """Let the file go."""
        self._archive.close()
        self._file.close()

    def __enter__(self) -> ArchiveReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _member(self, name: str, limit: int) -> bytes:
        """A member's bytes, never more than ``limit``, whatever the file claims."""
        with self._archive.open(name) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise ArchiveError(f"{name} in {self._path} is larger than {limit} bytes; export it again")
        return data

    def _check_whole(self) -> None:
        found, said = self.manifest.get("format"), (self.manifest["turns"], self.manifest["tokens"])
        if found != FORMAT:
            raise ArchiveError(
                f"{self._path} has export format {found!r}, not {FORMAT}; use a newer agentmem"
            )
        if said != (len(self.rows), self.tokens):
            raise ArchiveError(
                f"{self._path} should hold {said[0]} turns and {said[1]} tokens, but holds {len(self.rows)} and "
                f"{self.tokens}; export it again"
            )

    def _turn_to(self, start: int, layout: KVLayout) -> None:
        if start == self._start:
            return
        size = min(PIECE_TOKENS, self.tokens - start)
        name = piece_name(start)
        with _reading(self._path):
            piece = load_tensors(self._member(name, size * layout.bytes_per_token + (1 << 20)))
            for layer, (heads, dim) in enumerate(layout.layers):
                for kind in ("keys", "values"):
                    found = piece[f"layers.{layer}.{kind}"]
                    if found.shape != (heads, size, dim) or found.dtype != layout.dtype:
                        raise ArchiveError(
                            f"{name} in {self._path}: layers.{layer}.{kind} has another shape or dtype; "
                            "export it again"
                        )
        self._start, self._piece = start, piece


def layout_json(layout: KVLayout) -> dict[str, Any]:
    """What a manifest says of a layout: shapes and dtype as the model made them, and how they are kept."""
    made: dict[str, Any] = {
        "layers": [list(layer) for layer in layout.decoded.layers],
        "dtype": str(layout.decoded.dtype).removeprefix("torch."),
    }
    if layout.codec is not None:
        made[_CHANNELS] = base64.b64encode(layout.codec.channels).decode()
    return made


@contextmanager
def new_archive(path: Path, key: MemoryKey | None) -> Iterator[IO[bytes]]:
    """A new file that only its owner can read, encrypted if there is a key; one that lies there is replaced.

    Raises OSError.
    """
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "r+b") as file:
        if key is None:
            yield file
            return
        with EncryptedFileWriter(file.fileno(), key) as sealed:
            yield cast("IO[bytes]", sealed)


def _decrypted(path: Path, key: MemoryKey | None) -> IO[bytes]:
    return io.BufferedReader(EncryptedFileReader(path, key))


def _zip(file: Any) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except BaseException:
        file.close()
        raise


def pieces(tokens: int) -> Iterator[tuple[int, int]]:
    """The token ranges that K/V are written in."""
    for start in range(0, tokens, PIECE_TOKENS):
        yield start, min(start + PIECE_TOKENS, tokens)


def piece_name(start: int) -> str:
    """The zip member that holds K/V from token ``start`` on."""
    return f"kv/{start:012d}.safetensors"


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever a damaged or foreign file makes Python's readers raise is an ArchiveError."""
    try:
        yield
    except OSError as error:
        raise ArchiveError(f"cannot read {path}: {error}") from error
    except _DAMAGE as error:
        raise ArchiveError(f"{path} is not a whole agentmem export ({error!r}); export it again") from error


def _checked(value: Any, types: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """A JSON object that has these fields. Raises TypeError, KeyError."""
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, found {type(value).__name__}")
    for name, kind in types.items():
        if not isinstance(value[name], kind):
            raise TypeError(f"{name} is a {type(value[name]).__name__}")
    return value


def _check_origins(quarantine: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """What older exports lack may be missing, but not be of another type. Raises TypeError."""
    for held in quarantine or ():
        _checked(held, {"source": str, "since": str, "reason": (str, type(None))})
        if len(held) > len(("source", "since", "reason")):
            raise TypeError("quarantine has unknown fields")
    for row in rows:
        if not all(isinstance(row.get(name), str | None) for name in ("role", "trust")):
            raise TypeError("role or trust is no text")
        for one in row["settings"].get("hidden", ()):
            start, stop = one
            if not (isinstance(start, int) and isinstance(stop, int)):
                raise TypeError("hidden is no list of ranges")


def _checked_dtype(name: Any) -> str:
    if name not in ("float32", "bfloat16", "float16"):
        raise TypeError(f"dtype is {name!r}")
    return str(name)


def _checked_channels(text: Any) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)


def _checked_row(line: bytes) -> dict[str, Any]:
    row = _checked(json.loads(line), _ROW_TYPES)
    ids: Sequence[Any] = row["token_ids"]
    if not all(isinstance(token, int) for token in ids):
        raise TypeError("token_ids are not all numbers")
    if not all(isinstance(message, dict) and "role" in message for message in row["messages"]):
        raise TypeError("messages are not all objects with a role")
    if row["pending"] is None and not row["forgotten"]:
        raise TypeError("pending is missing")
    return row

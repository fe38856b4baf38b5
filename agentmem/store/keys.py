"""The user's key and each agent's own: a random data key, wrapped by the user's key, in a file of its own.

AES-256-GCM throughout (extra ``crypto``). Changing the user's key wraps the data key anew and rewrites one
small file; deleting that file, or losing the user's key, makes the agent unreadable for good. Knows bytes and
files; nothing of what is encrypted.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentmem.errors import DamagedError, InputError, KeyNeededError, WrongKeyError
from agentmem.store.cipher import KEY_BYTES, NONCE_BYTES, TAG_BYTES, Cipher, derived, stretched
from agentmem.store.failures import unreadable
from agentmem.store.files import opened, read_all, sync_file, sync_folder, write_all

KEY_FILE = "key"
_SCRYPT = {"n": 1 << 15, "r": 8, "p": 1}
"""32 MB and a tenth of a second for each guess."""
_LONGEST = 1 << 16


class MemoryKey:
    """What unlocks encrypted agents. Made by :meth:`generate`, :meth:`read` or :meth:`from_passphrase`."""

    def __init__(self, secret: bytes, *, passphrase: bool) -> None:
        self._secret = secret
        self._passphrase = passphrase

    @classmethod
    def generate(cls) -> MemoryKey:
        """A new random key; :meth:`save` it, or what it encrypts is lost with this process."""
        return cls(secrets.token_bytes(KEY_BYTES), passphrase=False)

    @classmethod
    def from_passphrase(cls, passphrase: str) -> MemoryKey:
        """A key from words, made expensive to guess by scrypt with a salt of each agent's own. Raises InputError."""
        if not isinstance(passphrase, str) or not passphrase:
            raise InputError("the passphrase is empty; give some words")
        return cls(passphrase.encode(), passphrase=True)

    @classmethod
    def read(cls, path: str | Path) -> MemoryKey:
        """The key of a file that :meth:`save` wrote. Raises InputError."""
        try:
            secret = base64.b64decode(Path(path).read_bytes(), validate=False)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read a key from {path}: {error}") from None
        if len(secret) != KEY_BYTES:
            raise InputError(
                f"{path} holds no key of {KEY_BYTES} bytes; make one with MemoryKey.generate().save()"
            )
        return cls(secret, passphrase=False)

    def save(self, path: str | Path) -> Path:
        """Write the key to a new file that only its owner can read. Raises InputError."""
        if self._passphrase:
            raise InputError("a passphrase is not saved; remember it")
        target = Path(path)
        try:
            with opened(target, os.O_RDWR | os.O_CREAT | os.O_EXCL) as fd:
                write_all(fd, base64.b64encode(self._secret) + b"\n", 0)
                sync_file(fd)
        except OSError as error:
            raise InputError(f"cannot write a key to {path}: {error}") from None
        return target

    def kind(self) -> dict[str, Any]:
        """How a wrapping key is made of it, with a new salt: plain JSON, kept beside what was wrapped."""
        if not self._passphrase:
            return {"kind": "key"}
        return {"kind": "scrypt", **_SCRYPT, "salt": secrets.token_hex(16)}

    def wrapping(self, kind: Mapping[str, Any]) -> bytes | None:
        """The wrapping key; None when this is not the kind of key that was used."""
        if (kind["kind"] == "scrypt") != self._passphrase:
            return None
        if not self._passphrase:
            return self._secret
        n, r, p = int(kind["n"]), int(kind["r"]), int(kind["p"])
        if not (1 < n <= 1 << 20 and 1 <= r <= 32 and 1 <= p <= 16):  # a changed file may not eat the machine
            return None
        return stretched(self._secret, bytes.fromhex(kind["salt"]), n, r, p)

    def __repr__(self) -> str:
        return f"<MemoryKey: {'passphrase' if self._passphrase else 'key'}>"


class DataKey:
    """An agent's own key. ``domain`` names whose it was at birth: forks keep both, since they share files."""

    def __init__(self, secret: bytes, domain: str) -> None:
        self.secret = secret
        self.domain = domain

    @classmethod
    def new(cls, domain: str) -> DataKey:
        """A random key for a new agent."""
        return cls(secrets.token_bytes(KEY_BYTES), domain)

    def cipher(self, what: str) -> Cipher:
        """AES-GCM under a key made for one thing alone, such as one file."""
        return Cipher(derived(self.secret, f"agentmem {self.domain} {what}"))

    def wrapped(self, key: MemoryKey, uuid: str) -> bytes:
        """The content of the key file of agent ``uuid``."""
        kind, nonce = key.kind(), secrets.token_bytes(NONCE_BYTES)
        wrapping = key.wrapping(kind)
        assert wrapping is not None
        sealed = Cipher(wrapping).encrypt(nonce, self.secret, _bound(uuid, self.domain))
        record = {"format": 1, "domain": self.domain, **kind, "nonce": nonce.hex(), "wrapped": sealed.hex()}
        return json.dumps(record).encode()


def is_encrypted(folder: Path) -> bool:
    """Whether an agent's folder holds an encrypted agent."""
    return (folder / KEY_FILE).exists() or (folder / "agent.enc").exists()


def unlock(folder: Path, agent_id: str, uuid: str, key: MemoryKey | None) -> DataKey | None:
    """The data key of an agent; None for one that is not encrypted.

    Raises:
        KeyNeededError: it is encrypted and no key was given, or the other way round.
        WrongKeyError: the key does not open it.
        DamagedError: the key file is not what was written, or is gone.
    """
    if not is_encrypted(folder):
        if key is not None:
            raise KeyNeededError(
                f"agent {agent_id!r} is not encrypted, so a key does not fit it; open it without. To encrypt it, "
                "export it and restore it with the key."
            )
        return None
    if key is None:
        raise KeyNeededError(
            f"agent {agent_id!r} is encrypted; give the key it was made with: key=MemoryKey..."
        )
    with _whole(agent_id):
        data_key = unwrapped(key_record(folder, agent_id), uuid, key)
    if data_key is not None:
        return data_key
    raise WrongKeyError(f"agent {agent_id!r} is not opened by this key; give the one it was last locked with")


def key_record(folder: Path, agent_id: str) -> Mapping[str, Any]:
    """What an agent's key file holds. Raises DamagedError, StoreError."""
    try:
        with _whole(agent_id), opened(folder / KEY_FILE, os.O_RDONLY) as fd:
            record = json.loads(read_all(fd, _LONGEST, 0))
            for name in ("domain", "kind", "nonce", "wrapped"):
                str(record[name])
    except OSError as error:
        raise unreadable(agent_id, KEY_FILE, "the whole file", "read", error) from error
    return dict(record)


@contextmanager
def _whole(agent_id: str) -> Iterator[None]:
    """What a key file holds makes sense. Raises DamagedError."""
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(
            agent_id, KEY_FILE, "the whole file", f"it holds no wrapped key ({error!r})"
        ) from error


def unproven(record: Mapping[str, Any], key: MemoryKey) -> DataKey | None:
    """The data key in what :meth:`DataKey.wrapped` made for any agent, not authenticated: random bytes if ``key`` is wrong.

    None when another kind of key wrapped it.
    """
    nonce, sealed = bytes.fromhex(record["nonce"]), bytes.fromhex(record["wrapped"])
    wrapping = key.wrapping(record)
    if wrapping is None:
        return None
    secret = Cipher(wrapping).encrypt(nonce, sealed[:-TAG_BYTES], b"")[:-TAG_BYTES]  # its own inverse
    return DataKey(secret, str(record["domain"]))


def unwrapped(record: Mapping[str, Any], uuid: str, key: MemoryKey) -> DataKey | None:
    """The data key in what :meth:`DataKey.wrapped` made; None when another key wrapped it.

    Raises:
        ValueError, KeyError, TypeError: it is nothing of that kind.
    """
    nonce, sealed = bytes.fromhex(record["nonce"]), bytes.fromhex(record["wrapped"])
    domain, wrapping = str(record["domain"]), key.wrapping(record)
    secret = None if wrapping is None else Cipher(wrapping).decrypt(nonce, sealed, _bound(uuid, domain))
    return None if secret is None else DataKey(secret, domain)


def write_key(folder: Path, content: bytes) -> None:
    """Put a key file in its place, whole or not at all, and overwrite the one before it. Raises OSError."""
    path, new = folder / KEY_FILE, folder / (KEY_FILE + ".new")
    new.unlink(missing_ok=True)
    with opened(new, os.O_RDWR | os.O_CREAT | os.O_EXCL) as fd:
        write_all(fd, content, 0)
        sync_file(fd)
    old = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC) if path.exists() else -1
    try:
        new.replace(path)
        sync_folder(folder)
        if old >= 0:
            write_all(old, bytes(os.fstat(old).st_size), 0)  # best effort: file systems may keep copies
            sync_file(old)
    finally:
        if old >= 0:
            os.close(old)


def _bound(uuid: str, domain: str) -> bytes:
    return f"agentmem key of {uuid} for {domain}".encode()

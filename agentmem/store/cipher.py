"""AES-256-GCM and the making of keys, from the package ``cryptography`` (extra ``crypto``), loaded when needed.

Knows bytes alone.
"""

from __future__ import annotations

import importlib
from typing import Any

from agentmem.errors import MissingExtraError

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16

Bytes = bytes | bytearray | memoryview


class Cipher:
    """AES-256-GCM under one key. Raises MissingExtraError."""

    def __init__(self, key: bytes) -> None:
        self._aes = _module("hazmat.primitives.ciphers.aead").AESGCM(key)
        self._wrong = _module("exceptions").InvalidTag

    def encrypt(self, nonce: bytes, data: Bytes, bound: bytes) -> bytes:
        """The ciphertext and its tag; ``nonce`` never twice, ``bound`` is authenticated with it."""
        sealed: bytes = self._aes.encrypt(nonce, data, bound)
        return sealed

    def decrypt(self, nonce: bytes, data: Bytes, bound: bytes) -> bytes | None:
        """What was encrypted; None when the key, the nonce, the data or ``bound`` is another."""
        try:
            plain: bytes = self._aes.decrypt(nonce, data, bound)
        except self._wrong:
            return None
        return plain


def derived(secret: bytes, purpose: str) -> bytes:
    """A key for one purpose (HKDF-SHA256)."""
    sha256 = _module("hazmat.primitives.hashes").SHA256()
    hkdf = _module("hazmat.primitives.kdf.hkdf").HKDF(sha256, KEY_BYTES, salt=None, info=purpose.encode())
    key: bytes = hkdf.derive(secret)
    return key


def stretched(passphrase: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    """A key from words (scrypt)."""
    scrypt = _module("hazmat.primitives.kdf.scrypt").Scrypt(salt, KEY_BYTES, n=n, r=r, p=p)
    key: bytes = scrypt.derive(passphrase)
    return key


def _module(name: str) -> Any:
    try:
        return importlib.import_module("cryptography." + name)
    except ImportError:
        raise MissingExtraError(
            "encryption needs the package cryptography: pip install 'agentmem-kv[crypto]'"
        ) from None

"""What every contract is tried on: a home on disk, one whose agents are encrypted, and one in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentmem.store import DiskHome, Home, InMemoryHome, MemoryKey
from support.stores import DIGEST_BLOCKS, SEGMENT_TOKENS, memory_folder

KEY = MemoryKey.generate()


@pytest.fixture(params=["disk", "encrypted", "memory"])
def home(request: pytest.FixtureRequest) -> Iterator[Home]:
    """An empty home of each kind."""
    if request.param == "memory":
        yield InMemoryHome()
        return
    key = KEY if request.param == "encrypted" else None
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        yield DiskHome(Path(folder), segment_tokens=SEGMENT_TOKENS, digest_blocks=DIGEST_BLOCKS, key=key)

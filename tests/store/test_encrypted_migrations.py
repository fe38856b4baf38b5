"""Encrypted agents whose index is of a past format: brought up to date when they are opened for writing."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmem.store import DiskHome, MemoryKey
from support.old_index import make_older_encrypted, versions
from support.stores import DIGEST_BLOCKS, SEGMENT_TOKENS, add_turn, contents, create, expected, same

pytest.importorskip("cryptography")


@pytest.mark.parametrize("before", versions()[1:])
def test_an_older_encrypted_index_is_brought_up_to_date(tmp_path: Path, before: str) -> None:
    """It opens, holds what it held, takes turns, and does so again when it is opened anew."""
    home = DiskHome(
        tmp_path, segment_tokens=SEGMENT_TOKENS, digest_blocks=DIGEST_BLOCKS, key=MemoryKey.generate()
    )
    store = create(home)
    add_turn(store, 1, 40, blocks=2)
    add_turn(store, 2, 50)
    store.close()
    make_older_encrypted(home, "ada", before)
    for seed, wanted in ((3, ((1, 40), (2, 50))), (4, ((1, 40), (2, 50), (3, 20)))):
        store = home.open("ada")
        assert same(contents(store.log), expected(*wanted))
        assert [turn.id for turn in store.search("message")] == [turn.id for turn in reversed(store.turns())]
        add_turn(store, seed, 20)
        assert store.verify(deep=True).ok
        store.close()
    assert not list(home.folder_of("ada").glob("plain*"))

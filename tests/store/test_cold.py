"""Rows that lie on the medium alone: fetched side by side, and little beside them."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from agentmem import MemoryKey
from agentmem.store import DiskHome
from agentmem.store.base import Store
from agentmem.store.pages import PAGE_SLOTS
from agentmem.store.tensor_file import TensorFile
from benchmarks.machine import evict, pages_in_memory
from support.stores import LAYOUT, add_turn, create, expected

PAGES = 128
TOKENS = PAGES * PAGE_SLOTS
FAR = (PAGES - 4) * PAGE_SLOTS
"""What opening a file reads lies before."""


@pytest.fixture(params=["plain", "encrypted"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An agent of one segment, opened after its files left memory."""
    key = None if request.param == "plain" else MemoryKey.generate()
    home = DiskHome(tmp_path, segment_tokens=PAGES * PAGE_SLOTS, key=key)
    made = create(home)
    add_turn(made, 1, TOKENS)
    made.close()
    if not (hasattr(os, "RWF_NOWAIT") and evict(tmp_path)):
        pytest.skip("this system does not tell what is in memory, or keeps everything there")
    opened = home.open("ada")
    yield opened
    opened.close()


def test_a_look_fetches_what_it_takes(store: Store, tmp_path: Path) -> None:
    """Two blocks of each head bring a few pages into memory, not all that a read-ahead would."""
    heads, dim = LAYOUT.layers[0]
    tokens = torch.arange(2 * PAGE_SLOTS).view(2, -1) + torch.tensor([[0], [90 * PAGE_SLOTS]])
    tokens = tokens.reshape(1, -1).expand(heads, -1).contiguous()
    keys, values = torch.empty(2, heads, tokens.shape[1], dim)

    store.log.gather(0, tokens, keys, values)

    for found, there in zip((keys, values), expected((1, TOKENS))[:2], strict=True):
        assert torch.equal(found, there.gather(1, tokens[..., None].expand(-1, -1, dim)))
    size = sum(2 * heads * dim for heads, dim in LAYOUT.layers) * TOKENS * LAYOUT.dtype.itemsize
    with next(tmp_path.glob("agents/*/kv/*")).open("rb") as file:
        pages = pages_in_memory(file.fileno())
    assert pages is not None and 0 < pages * mmap.PAGESIZE < size // 4


def test_reading_a_layer_asks_for_the_layers_behind_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window is asked for once, whole, by the first layer that is read; what is warm is not asked for."""
    asked: list[tuple[int, int]] = []
    fetch = TensorFile.fetch

    def noted(self: TensorFile, offset: int, size: int) -> None:
        asked.append((offset, size))
        fetch(self, offset, size)

    monkeypatch.setattr(TensorFile, "fetch", noted)
    wanted = expected((1, TOKENS))
    for turn in range(2):
        asked.clear()
        for layer, (heads, dim) in enumerate(LAYOUT.layers):
            keys, values = torch.empty(2, heads, PAGE_SLOTS, dim)
            store.log.read(layer, FAR, FAR + PAGE_SLOTS, keys, values)
            assert torch.equal(keys, wanted[2 * layer][:, FAR : FAR + PAGE_SLOTS])
            assert torch.equal(values, wanted[2 * layer + 1][:, FAR : FAR + PAGE_SLOTS])
            if turn == 0 and layer == 0:
                assert len(asked) >= sum(2 * heads for heads, _ in LAYOUT.layers)
    assert asked == []


def test_where_the_system_does_not_tell_nothing_is_asked_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then its own reading ahead is left as it is, and rows arrive all the same."""
    monkeypatch.setattr("agentmem.store.tensor_file._DO_NOT_WAIT", None)
    monkeypatch.setattr(TensorFile, "fetch", lambda *_: pytest.fail("fetched"))
    heads, dim = LAYOUT.layers[0]
    keys = torch.empty(heads, TOKENS, dim)
    store.log.read(0, 0, TOKENS, keys, None)
    assert torch.equal(keys, expected((1, TOKENS))[0])

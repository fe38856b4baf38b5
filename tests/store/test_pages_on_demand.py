"""Checksums of pages are fetched when a page is first read: few of many, and never none where there should be some."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import torch

from agentmem.errors import DamagedError
from agentmem.store import DiskHome
from agentmem.store.disk import DiskStore
from agentmem.store.pages import PAGE_SLOTS
from agentmem.store.slot_rows import SlotRows
from support.stores import LAYOUT, add_turn, contents, create, expected, kv, new_turn, same

PAGES = 90


@pytest.fixture
def home(tmp_path: Path) -> DiskHome:
    """A home whose agent "ada" has ninety pages in one segment, a turn in each."""
    home = DiskHome(tmp_path, segment_tokens=2 * PAGES * PAGE_SLOTS)
    store = create(home)
    for seed in range(PAGES):
        add_turn(store, seed, PAGE_SLOTS)
    store.close()
    return home


def read(store: DiskStore, start: int, stop: int) -> torch.Tensor:
    """Keys of layer 0."""
    heads, dim = LAYOUT.layers[0]
    out = torch.empty(heads, stop - start, dim)
    store.log.read(0, start, stop, out, None)
    return out


def test_only_what_is_read_is_fetched(home: DiskHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads of three places ask the index for their pages, and what lies between near ones, once; a later turn for none."""
    asked: list[int] = []

    def noting(rows: SlotRows, segment: int, first: int = 0, stop: int | None = None) -> object:
        asked.extend(range(first, PAGES if stop is None else stop))
        return pages(rows, segment, first, stop)

    pages = SlotRows.pages
    monkeypatch.setattr(SlotRows, "pages", noting)
    store = home.open("ada")
    read(store, 3 * PAGE_SLOTS, 5 * PAGE_SLOTS)
    tokens = torch.tensor([[9 * PAGE_SLOTS, 12 * PAGE_SLOTS, 80 * PAGE_SLOTS + 7]] * LAYOUT.layers[0][0])
    store.log.gather(0, tokens, torch.empty(LAYOUT.layers[0][0], 3, LAYOUT.layers[0][1]), None)
    store.log.gather(0, tokens - PAGE_SLOTS, torch.empty(LAYOUT.layers[0][0], 3, LAYOUT.layers[0][1]), None)
    assert asked == [3, 4, 9, 10, 11, 12, 80, 8, 79]
    add_turn(store, 99, 3)
    read(store, 3 * PAGE_SLOTS, 5 * PAGE_SLOTS)
    read(store, PAGES * PAGE_SLOTS, PAGES * PAGE_SLOTS + 3)
    assert asked == [3, 4, 9, 10, 11, 12, 80, 8, 79]
    store.close()


def test_a_page_without_its_row_is_damage(home: DiskHome) -> None:
    """Its bytes are not handed out; the other pages are, and so are those an open turn has just begun."""
    conn = sqlite3.connect(home._folder("ada") / "agent.db")
    conn.execute("DELETE FROM pages WHERE page = 7")
    conn.commit()
    conn.close()
    store = home.open("ada")
    with pytest.raises(DamagedError, match="slots 224 to 256"):
        read(store, 0, PAGES * PAGE_SLOTS)
    store.begin()
    store.log.append(*kv(50, 2 * PAGE_SLOTS + 5))
    assert read(store, PAGES * PAGE_SLOTS, PAGES * PAGE_SLOTS + 69).shape[1] == 69
    with pytest.raises(DamagedError):
        read(store, 7 * PAGE_SLOTS, 7 * PAGE_SLOTS + 1)
    store.commit(new_turn(50, 2 * PAGE_SLOTS + 5))
    assert read(store, 8 * PAGE_SLOTS, 9 * PAGE_SLOTS).shape[1] == PAGE_SLOTS
    assert not store.verify(deep=True).ok
    store.close()


def test_a_turn_after_dropped_ones(home: DiskHome) -> None:
    """Slots that dropped turns wrote to are used again, in pages that were begun already; all reads back."""
    store = home.open("ada")
    for seed in range(3):
        store.begin()
        store.log.append(*kv(60 + seed, 50))
        contents(store.log)
        store.abort()
    add_turn(store, 70, 50)
    add_turn(store, 71, 20)
    wanted = expected(*((seed, PAGE_SLOTS) for seed in range(PAGES)), (70, 50), (71, 20))
    assert same(contents(store.log), wanted)
    store.close()
    store = home.open("ada")
    assert same(contents(store.log), wanted)
    assert store.verify(deep=True).ok
    store.close()


def test_what_was_read_is_checked_in_each_turn(home: DiskHome) -> None:
    """A byte that changes behind our back is noticed by the next turn, and not only at the first reading."""
    store = home.open("ada")
    read(store, 0, 2 * PAGE_SLOTS)
    path = next((home._folder("ada") / "kv").iterdir())
    with path.open("r+b") as file:
        file.seek(store._segments.spec.offset(0, 0, PAGE_SLOTS + 1))
        file.write(b"\xff\xfe\xfd")
    read(store, 0, 2 * PAGE_SLOTS)  # of this turn still
    store.begin()
    with pytest.raises(DamagedError, match="slots 32 to 64"):
        read(store, 0, 2 * PAGE_SLOTS)
    store.abort()
    store.close()
